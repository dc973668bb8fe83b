"""Words of the demo catalogue: a category tree in English and Chinese, and sentence patterns.

``TREE`` is read line by line; alternatives are parted by ``;`` and ``<20-32>`` stands for a whole
number in that range::

    # Department | scenes | scenes in Chinese
    brands, each carried by one to three branches
    ## Branch | uses | uses in Chinese
    materials
    materials in Chinese
    ### Leaf | nouns | nouns in Chinese
    traits
    traits in Chinese

All brands are invented.
"""

TREE = """
# Kitchen | kitchen; home cooks; dining table | 厨房; 餐桌
Orvenna; Pottering Hob; Talmick; Simmerly; Grainfold; Vesperdish; Noonladle
## Cookware | weeknight cooking; slow Sunday meals; induction hobs | 家常炒菜; 周末慢炖; 电磁炉
cast iron; stainless steel; enamelled steel; hard-anodised aluminium
铸铁; 不锈钢; 珐琅; 硬质氧化铝
### Frying pans | frying pan; skillet; sauté pan | 平底锅; 煎锅
<20-32> cm base; sloping sides; rolled pouring rim; ceramic non-stick coating; riveted handle
<20-32>厘米锅底; 陶瓷不粘涂层; 卷边锅口
### Saucepans | saucepan; milk pan; sauce pot | 奶锅; 汁锅
<1-3> litre capacity; two pouring lips; measuring marks inside; strainer lid; long cool handle
<1-3>升容量; 双侧导流嘴; 内壁刻度
### Casseroles | casserole; Dutch oven; stew pot | 炖锅; 焖烧锅
<3-7> litre capacity; drip points under the lid; oven-safe knob; wide side grips; thick walls
<3-7>升容量; 锅盖聚水点; 加宽双耳
### Woks | wok; stir-fry pan; round-bottom wok | 炒锅; 中华炒锅
<28-36> cm rim; high curved walls; helper loop; flat burner base; carbon finish to season
<28-36>厘米口径; 深弧锅身; 开锅免涂层
## Coffee and tea | morning brews; afternoon tea; small worktops | 早晨一杯; 下午茶; 小户型台面
borosilicate glass; brushed steel; glazed stoneware; copper
高硼硅玻璃; 拉丝不锈钢; 釉面陶瓷
### Kettles | kettle; electric kettle; water boiler | 电热水壶; 烧水壶
<1-2> litre jug; boil-dry cut-off; limescale filter; rapid <1500-3000> W element; cordless base
<1-2>升壶身; 防干烧断电; <1500-2200>瓦快煮
### Coffee makers | coffee maker; filter coffee machine; drip brewer | 咖啡机; 滴滤咖啡壶
<4-12> cup jug; keep-warm plate; reusable mesh filter; drip stop; brew timer
<4-12>杯容量; 保温底盘; 可洗滤网
### Teapots | teapot; infuser teapot; brewing pot | 茶壶; 泡茶壶
lift-out leaf strainer; drip-free spout; <400-1200> ml body; lid that stays put; bamboo handle
可拆茶漏; 断水壶嘴; <400-1200>毫升壶身
### Coffee grinders | coffee grinder; burr mill; bean grinder | 磨豆机; 咖啡研磨机
conical burrs; <12-40> grind steps; static-free hopper; dose timer; removable grounds drawer
锥形磨芯; <12-40>档粗细; 防静电豆仓
## Food preparation | chopping vegetables; weekend baking; meal prep | 切菜备料; 周末烘焙; 便当准备
acacia wood; forged steel; bamboo; silicone
相思木; 锻打钢; 竹木; 食品级硅胶
### Kitchen knives | chef's knife; kitchen knife; cook's blade | 菜刀; 主厨刀
<15-24> cm blade; full tang; hand-honed edge; bolster for the fingers; sheath for the drawer
<15-24>厘米刀刃; 通体龙骨; 手工开刃
### Cutting boards | cutting board; chopping board; carving board | 砧板; 切菜板
juice groove; end-grain surface; rubber feet; hanging hole; reversible sides
接汁凹槽; 双面可用; 防滑垫脚
### Graters | grater; box grater; zester | 刨丝器; 擦菜板
four cutting faces; etched teeth; non-slip base ring; finger guard; catch tub
四面刨刃; 蚀刻细齿; 护手器
### Mixing bowls | mixing bowl; batter bowl; salad bowl | 打蛋盆; 和面盆
nesting set of <3-5>; snap-on lids; thumb lip; splash ring; graduated inside wall
<3-5>件套叠; 带盖密封; 内壁刻度
## Tableware | family dinners; brunch with friends; picnics | 家庭聚餐; 朋友早午餐; 野餐
porcelain; bone china; stoneware; enamel
骨瓷; 粗陶; 搪瓷
### Plates | dinner plate; side plate; pasta plate | 餐盘; 菜盘
<18-30> cm across; reactive glaze; raised rim; stackable foot; microwave-safe body
<18-30>厘米直径; 窑变釉面; 可叠放盘底
### Mugs | mug; coffee mug; tea cup | 马克杯; 水杯
<250-450> ml; roomy handle; speckled glaze; tapered base; lid that doubles as a coaster
<250-450>毫升; 宽大杯耳; 斑点釉
### Cutlery | cutlery set; flatware; table spoons and forks | 餐具套装; 刀叉勺
<16-48> pieces; mirror polish; weighted knife; rounded tines; storage tray
<16-48>件; 镜面抛光; 收纳盒

# Electronics | living room; commuters; home office | 客厅; 通勤路上; 居家办公
Lumeqo; Hexabyte Lane; Quillwave; Nadirtone; Bitmarrow; Voltani; Echobrook
## Audio | long flights; podcasts; parties | 长途飞行; 录播客; 聚会
recycled plastic; anodised aluminium; memory foam
再生塑料; 阳极氧化铝; 记忆棉
### Headphones | headphones; over-ear headset; noise-cancelling cans | 头戴式耳机; 降噪耳机
<20-60> hours of playback; active noise control; folding hinge; <30-50> mm drivers; ambient mode
<20-60>小时续航; 主动降噪; 折叠头梁
### Speakers | bluetooth speaker; portable speaker; wireless loudspeaker | 蓝牙音箱; 便携音响
<8-40> W output; passive radiator; stereo pairing; splash-proof grille; carry strap
<8-40>瓦输出; 双机串联; 防泼水网罩
### Microphones | microphone; condenser mic; recording mic | 麦克风; 电容话筒
cardioid pickup; shock mount; pop shield; gain dial; mute touch button
心形指向; 防震架; 一键静音
## Computing | coding all day; small desks; video editing | 整天敲代码; 小书桌; 视频剪辑
aluminium; ABS plastic; tempered glass
铝合金; ABS塑料; 钢化玻璃
### Keyboards | keyboard; mechanical keyboard; typing board | 机械键盘; 键盘
<61-108> keys; hot-swap switches; per-key backlight; double-shot caps; detachable cable
<61-108>键; 热插拔轴体; 双色键帽
### Computer mice | mouse; wireless mouse; vertical mouse | 鼠标; 无线鼠标
<800-16000> dpi sensor; silent clicks; thumb scroll wheel; tilted grip; stow-away receiver
<800-16000>dpi传感器; 静音按键; 人体工学握感
### Monitors | monitor; computer display; widescreen | 显示器; 电脑屏幕
<22-34> inch panel; <60-165> Hz refresh; height-adjustable stand; anti-glare film; slim bezel
<22-34>英寸面板; <60-165>赫兹刷新率; 升降支架
### USB hubs | USB hub; docking station; port extender | 扩展坞; 分线器
<4-12> ports; HDMI output; card slot; <60-100> W pass-through; braided lead
<4-12>个接口; HDMI输出; <60-100>瓦供电
## Phone accessories | commuting; road trips; hands-free calls | 上下班; 自驾出行; 免提通话
polycarbonate; vegan leather; liquid silicone; nylon braid
聚碳酸酯; 素皮; 液态硅胶
### Phone cases | phone case; bumper case; mobile cover | 手机壳; 保护套
raised camera edge; air-cushion corners; magnet ring; grippy sides; card pocket
镜头凸边; 气囊四角; 磁吸环
### Chargers | charger; wall adapter; fast charging plug | 充电器; 快充插头
<18-120> W output; foldable pins; two USB-C sockets; surge guard; gallium nitride chip
<18-120>瓦输出; 折叠插脚; 氮化镓芯片
### Power banks | power bank; portable battery; battery pack | 充电宝; 移动电源
<5000-26800> mAh cells; charge display; two-way USB-C; cabin-size shell; wireless pad
<5000-26800>毫安时; 电量数显; 双向快充
### Phone holders | phone holder; car mount; dashboard cradle | 手机支架; 车载支架
suction cup; one-hand clamp; ball joint; vent clip; telescopic arm
吸盘底座; 单手夹持; 万向球头
## Photography | travel photos; night shots; studio work | 旅拍; 夜景; 棚拍
carbon fibre; waxed canvas; magnesium alloy
碳纤维; 蜡染帆布; 镁合金
### Tripods | tripod; camera stand; travel tripod | 三脚架; 相机支架
<120-180> cm height; twist leg locks; fluid head; centre column hook; quick-release plate
<120-180>厘米高度; 旋锁腿管; 快装板
### Camera bags | camera bag; sling bag; lens pouch | 相机包; 镜头袋
padded dividers; rain cover; tripod straps; side access; hidden passport pocket
可调隔层; 防雨罩; 侧开快取
### Memory cards | memory card; flash card; SD card | 存储卡; 内存卡
<32-512> GB; <90-300> MB/s reads; burst-shooting buffer; x-ray proof casing; labelled sleeve
<32-512>GB; <90-300>MB/s读速; 防X光外壳

# Outdoor | trail; weekend trips; wild places | 户外; 周末远行
Ridgemoss; Fernhollow; Talus & Tarn; Kelpstone; Windbarrow; Larkpeak; Mudlight
## Camping | family camping; winter nights; festivals | 亲子露营; 冬夜; 音乐节
ripstop nylon; polycotton; goose down; titanium
防撕裂尼龙; 涤棉; 鹅绒; 钛
### Tents | tent; dome tent; tunnel shelter | 帐篷; 露营帐
room for <1-6> people; <2000-5000> mm flysheet; taped seams; blackout inner; porch
可住<1-6>人; <2000-5000>毫米防水外帐; 压胶接缝
### Sleeping bags | sleeping bag; mummy bag; down bag | 睡袋; 木乃伊睡袋
comfort to <2-15> degrees; two-way zip; draught collar; compression sack; foot box
舒适温标<2-15>度; 双向拉链; 压缩收纳袋
### Camping stoves | camping stove; gas burner; backpacking cooker | 露营炉; 气罐炉头
<2000-3500> W flame; piezo igniter; wind shield; folding pot arms; simmer valve
<2000-3500>瓦火力; 电子点火; 防风罩
### Lanterns | lantern; camp light; hanging tent light | 露营灯; 营地灯
<100-1000> lumens; warm glow mode; collapsible shade; hook and magnet; crank charging
<100-1000>流明; 暖光模式; 挂钩加磁铁
## Hiking | day walks; alpine huts; long trails | 一日徒步; 高山木屋; 长线穿越
coated canvas; carbon; merino wool; aluminium alloy
涂层帆布; 碳素; 美利奴羊毛; 铝合金
### Backpacks | backpack; rucksack; daypack | 登山包; 双肩背包
<18-65> litre volume; vented back panel; hip belt pockets; hydration sleeve; lid pocket
<18-65>升容积; 透气背板; 腰带口袋
### Trekking poles | trekking poles; walking sticks; hiking poles | 登山杖; 徒步手杖
cork grips; flick locks; tungsten tips; snow baskets; <36-62> cm packed length
软木手柄; 外锁调节; 钨钢杖尖
### Water bottles | water bottle; flask; hydration bottle | 运动水壶; 保温水瓶
<500-1500> ml; straw lid; double vacuum wall; bite valve; wide mouth for ice
<500-1500>毫升; 吸管盖; 双层真空
## Cycling | city commutes; gravel rides; night rides | 城市通勤; 砾石骑行; 夜骑
hardened steel; in-moulded foam; rubber; alloy
淬火钢; 一体成型泡沫; 橡胶
### Bike lights | bike light; bicycle lamp; tail light | 自行车灯; 骑行尾灯
<50-1200> lumens; side visibility; brake sensor; daylight flash; tool-free strap
<50-1200>流明; 刹车感应; 日间爆闪
### Bike helmets | cycling helmet; bike helmet; road helmet | 骑行头盔; 自行车头盔
<10-24> vents; dial fit at the back; detachable visor; slip liner; chin pad
<10-24>个风孔; 旋钮调节; 可拆帽檐
### Bike locks | bike lock; chain lock; D-lock | 自行车锁; 链条锁
<8-16> mm shackle; pick-proof cylinder; frame bracket; number code; scratch sleeve
<8-16>毫米锁梁; 防撬锁芯; 密码开锁
### Bike pumps | bike pump; floor pump; tyre inflator | 打气筒; 充气泵
<80-160> psi; gauge at eye height; twin valve head; fold-out foot; frame clip
<80-160>psi气压; 大表盘; 双气嘴
## Fishing | river banks; sea piers; ice fishing | 河岸垂钓; 海钓; 冰钓
graphite; fluorocarbon; brass; balsa wood
石墨; 碳氟; 黄铜; 轻木
### Fishing rods | fishing rod; spinning rod; telescopic rod | 钓鱼竿; 路亚竿
<2-4> m reach; medium-fast action; stainless guides; cork butt; <2-6> sections
<2-4>米竿长; 快调性; <2-6>节收缩
### Fishing reels | fishing reel; spinning reel; baitcaster | 渔线轮; 纺车轮
<5-13> bearings; sealed drag; <4-8>:1 gear ratio; spare spool; left or right crank
<5-13>轴承; 密封泄力; 备用线杯
### Lures | fishing lure; crankbait; soft bait | 路亚饵; 假饵
treble hooks; rattle chamber; diving lip; holographic scales; <5-30> g sinking weight
三本钩; 响珠; 潜水舌板

# Office | desk; students; meeting room | 书桌; 学生; 会议室
Inkwarren; Paperglen; Margin & Moss; Deskery Nine; Foliant; Clipstone; Quorum Oak
## Writing | note-taking; exams; letters by hand | 课堂笔记; 考试; 手写信
brass; resin; recycled plastic; cedar wood
黄铜; 树脂; 再生塑料; 雪松木
### Ballpoint pens | ballpoint pen; gel pen; rollerball | 圆珠笔; 中性笔
0.<4-9> mm tip; quick-dry ink; soft grip; click mechanism; <10-50> refills
0.<4-9>毫米笔尖; 速干墨水; 按动出芯
### Fountain pens | fountain pen; piston pen; nib pen | 钢笔; 活塞墨水笔
iridium nib; ink converter; screw cap; medium or fine stroke; ink window
铱金笔尖; 上墨器; 旋帽
### Highlighters | highlighter; marker pen; chisel marker | 荧光笔; 记号笔
chisel edge; bleed-free ink; pastel shades; <4-24> colours; see-through tip
斜头笔尖; 不透纸; <4-24>色
### Pencils | pencil; drawing pencil; graphite pencil | 铅笔; 素描铅笔
<2-8>B core; hexagonal barrel; break-proof lead; dipped end; eraser cap
<2-8>B铅芯; 六角笔杆; 防断芯
## Paper goods | bullet journals; study plans; meeting minutes | 手账; 学习计划; 会议纪要
recycled paper; ivory paper; linen cover; kraft card
再生纸; 米白纸; 布面; 牛皮纸
### Notebooks | notebook; dotted journal; exercise book | 笔记本; 手账本
<80-240> pages; lay-flat binding; ribbon marker; numbered pages; <80-160> gsm sheets
<80-240>页; 平摊装订; 书签丝带
### Planners | planner; weekly diary; agenda | 日程本; 周计划本
undated weeks; habit tracker; goal pages; tabbed months; elastic closure
无日期周页; 习惯打卡; 月份标签
### Sticky notes | sticky notes; memo pads; page flags | 便利贴; 便签纸
<100-600> sheets; residue-free glue; index flags; lined squares; accordion dispenser
<100-600>张; 不留胶痕; 索引标签
## Desk equipment | late-night study; tidy desks; hot-desking | 夜间学习; 整洁桌面; 共享工位
powder-coated steel; bamboo; felt; acrylic
喷粉钢; 竹; 毛毡; 亚克力
### Desk lamps | desk lamp; reading light; task lamp | 台灯; 护眼灯
<3-10> brightness steps; flicker-free LEDs; swing arm; colour warmth slider; memory switch
<3-10>档亮度; 无频闪; 摇臂
### Desk organisers | desk organiser; pen pot; drawer tidy | 桌面收纳盒; 笔筒
<3-9> compartments; letter slot; cable notch; pull-out drawer; non-scratch pads
<3-9>格分区; 抽屉; 理线槽
### Staplers | stapler; paper binder; stapling machine | 订书机; 装订器
<10-60> sheet jaw; jam-free track; staple gauge; flat-clinch anvil; half-strip rail
<10-60>页厚度; 防卡钉; 平订底座
### Monitor stands | monitor stand; screen riser; laptop riser | 显示器增高架; 笔记本支架
<8-16> cm lift; keyboard bay; ventilation slots; <10-25> kg load; fold-flat legs
<8-16>厘米增高; 键盘收纳; 散热孔
## Seating | eight-hour days; gaming; back pain | 久坐办公; 电竞; 腰背不适
mesh; bonded leather; memory foam; nylon
网布; 西皮; 记忆棉; 尼龙
### Office chairs | office chair; task chair; swivel chair | 办公椅; 转椅
<90-130> degree recline; seat-depth slider; headrest; padded armrests; silent castors
<90-130>度后仰; 可调头枕; 静音滚轮
### Footrests | footrest; foot stool; leg rest | 脚踏板; 搁脚凳
rocking base; massage bumps; tilt lock; washable cover; <10-20> cm height
摇摆底座; 按摩凸点; 可拆洗外套
### Lumbar cushions | lumbar cushion; back support pillow; chair pad | 腰靠; 坐垫靠枕
contoured curve; breathable cover; adjustable strap; cooling gel; density of <40-60> kg
贴合腰曲线; 透气外套; 绑带固定

# Garden | garden; balcony; allotment | 花园; 阳台
Bramblegate; Sodworth; Thistledown Row; Loamery; Petrichor Yard; Greenwhistle; Hedgelock
## Watering | dry summers; raised beds; lawns | 干旱夏季; 种植箱; 草坪
galvanised steel; UV-stable PVC; brass
镀锌钢; 抗紫外线PVC; 黄铜
### Garden hoses | garden hose; hosepipe; expanding hose | 浇花水管; 伸缩软管
<10-50> m length; kink-free weave; tap connector; spray gun; wall reel
<10-50>米长; 防缠绕编织; 喷枪接头
### Watering cans | watering can; sprinkling can; spout can | 洒水壶; 浇水壶
<1-12> litre tank; brass rose; long spout; two carry points; fill line
<1-12>升水箱; 长壶嘴; 细孔花洒
### Sprinklers | sprinkler; lawn sprinkler; oscillating sprayer | 自动喷灌器; 草坪洒水器
<50-300> square metres; <12-20> nozzles; sweep dial; ground spike; zone timer
覆盖<50-300>平米; <12-20>个喷嘴; 定时分区
## Digging and pruning | rose beds; heavy clay; orchards | 月季花坛; 黏土地; 果园
carbon steel; ash wood; stainless steel
碳钢; 白蜡木; 不锈钢
### Secateurs | secateurs; pruning shears; garden snips | 修枝剪; 园艺剪
bypass blades; sap groove; <15-25> mm stems; thumb latch; spring return
旁路刀刃; 导汁槽; 可剪<15-25>毫米枝条
### Trowels | trowel; hand spade; planting scoop | 小铲子; 移植铲
depth marks; root-cutting point; hanging strap; rust-proof head; cranked neck
深度刻度; 尖头切根; 挂绳
### Rakes | rake; leaf rake; lawn rake | 耙子; 搂草耙
<10-24> tines; <120-180> cm shaft; spring fan; swap-in head; rolled tips
<10-24>齿; <120-180>厘米长柄; 弹性扇面
## Growing | sowing indoors; herbs; tomato seasons | 室内育苗; 香草种植; 番茄季
terracotta; coconut coir; peat-free mix; recycled plastic
红陶; 椰糠; 无泥炭基质; 再生塑料
### Plant pots | plant pot; planter; flower pot | 花盆; 种植盆
<8-40> cm opening; drainage hole; matching saucer; frost-proof clay; water reservoir
<8-40>厘米口径; 排水孔; 配托盘
### Seed trays | seed tray; propagator; seedling starter | 育苗盘; 育苗盒
<12-104> cells; clear humidity dome; vent slider; plug-out bottoms; plant labels
<12-104>孔穴; 透明保湿罩; 通风口
### Composts | potting compost; soil mix; growing medium | 营养土; 种植土
<10-60> litre sack; slow-release feed; worm castings; open texture; pH <5-7> balance
<10-60>升装; 缓释肥; 蚯蚓粪
### Plant feeds | plant food; fertiliser; liquid feed | 植物肥料; 营养液
seaweed extract; NPK <3-12>-<3-12>-<3-12>; dosing cap; trace minerals; weekly dilution
海藻提取物; 氮磷钾<3-12>-<3-12>-<3-12>; 计量瓶盖
## Outdoor living | summer evenings; patios; garden guests | 夏夜小聚; 露台; 庭院待客
teak; wicker; powder-coated aluminium; cast stone
柚木; 藤编; 喷粉铝; 铸石
### Parasols | parasol; sun umbrella; patio shade | 遮阳伞; 庭院伞
<2-4> m canopy; crank handle; tilt joint; wind vent; UPF <30-50> fabric
<2-4>米伞面; 手摇开合; 倾斜关节
### Garden benches | garden bench; patio seat; park bench | 庭院长椅; 公园椅
seats <2-4>; slatted back; curved armrests; levelling feet; under-seat storage
可坐<2-4>人; 板条靠背; 弧形扶手
### Bird feeders | bird feeder; seed feeder; nut feeder | 喂鸟器; 鸟食架
<2-6> perches; squirrel baffle; lift-off lid; suet cage; seed window
<2-6>个站杆; 防松鼠罩; 掀盖加料
### Barbecues | barbecue; charcoal grill; kettle grill | 烧烤炉; 木炭烤炉
<37-57> cm grate; ash catcher; lid thermometer; air damper; wheeled legs
<37-57>厘米烤网; 集灰盒; 盖上温度计

# Toys | children; rainy days; playroom | 孩子; 雨天; 游戏室
Wobblewick; Pipkin Fair; Tumbledee; Oddlethorpe; Marmalade Fox; Snickerbox; Playmere
## Building toys | small hands; classroom corners; patient builders | 小手练习; 教室角落; 耐心搭建
beech wood; ABS plastic; birch plywood
榉木; ABS塑料; 桦木夹板
### Wooden blocks | wooden blocks; building bricks; stacking cubes | 木积木; 堆叠积木
<20-120> pieces; rounded corners; water-based paint; cotton sack; letter faces
<20-120>块; 圆角打磨; 水性漆
### Marble runs | marble run; ball track; rolling maze | 滚珠轨道; 弹珠迷宫
<30-180> tubes; <10-50> glass marbles; spiral drop; see-saw switch; lift wheel
<30-180>节轨道; <10-50>颗玻璃珠; 螺旋滑道
### Model kits | model kit; scale model; assembly set | 拼装模型; 比例模型
1:<24-144> scale; snap-fit parts; decal sheet; step-by-step booklet; moving propeller
1:<24-144>比例; 免胶拼插; 水贴纸
## Puzzles and games | family evenings; two players; party nights | 家庭之夜; 双人对战; 聚会
grey board; linen card; maple wood
灰卡纸; 布纹卡; 枫木
### Jigsaw puzzles | jigsaw puzzle; jigsaw; picture puzzle | 拼图; 成人拼图
<100-2000> pieces; poster insert; dust-free cut; matt print; sorting pouches
<100-2000>片; 附海报; 哑光印刷
### Board games | board game; strategy game; tabletop game | 桌游; 策略棋盘游戏
<2-6> players; <20-120> minute rounds; wooden tokens; double-sided map; solo rules
<2-6>人; <20-120>分钟一局; 木质棋子
### Card games | card game; playing cards; trick-taking deck | 卡牌游戏; 扑克牌
<52-110> cards; rhyming challenges; pocket tin; rounded edges; bluffing rules
<52-110>张; 铁盒; 吹牛规则
### Brain teasers | brain teaser; puzzle cube; logic puzzle | 益智解谜; 魔方
<20-120> challenges; interlocking burr; smooth turning; solution leaflet; magnetic core
<20-120>关; 鲁班锁结构; 磁力定位
## Soft and pretend play | toddlers; role play; bedtime | 幼儿; 角色扮演; 睡前
organic cotton; velour; poplar wood; felt
有机棉; 天鹅绒; 杨木; 毛毡
### Plush animals | plush animal; cuddly toy; stuffed bear | 毛绒玩具; 毛绒小熊
<15-60> cm tall; embroidered eyes; bean-filled paws; washable fur; floppy ears
<15-60>厘米高; 刺绣眼睛; 可机洗
### Dolls' houses | doll's house; toy house; miniature home | 娃娃屋; 玩具小屋
<2-4> floors; <10-40> furniture pieces; opening front; tiny staircase; papered rooms
<2-4>层; <10-40>件家具; 可开前门
### Play kitchens | play kitchen; toy cooker; pretend kettle set | 过家家厨房; 玩具灶台
clicking knobs; toy frying pan; pretend tap; chalkboard door; wooden vegetables
可转旋钮; 玩具平底锅; 仿真水龙头
## Outdoor play | back gardens; beaches; school breaks | 后院; 海边; 课间
ripstop polyester; steel; foam rubber; rope
防撕裂涤纶; 钢; 泡沫橡胶; 绳
### Kites | kite; delta kite; stunt kite | 风筝; 三角风筝
<90-250> cm wingspan; <30-100> m line; ribbon tail; fibreglass spars; winder handle
<90-250>厘米翼展; <30-100>米线; 玻纤骨架
### Scooters | kick scooter; scooter; three-wheel scooter | 滑板车; 儿童滑板车
light-up wheels; lean steering; rear foot brake; folding stem; <30-100> kg limit
发光轮; 重力转向; 后脚刹
### Skipping ropes | skipping rope; jump rope; speed rope | 跳绳; 儿童跳绳
turn counter; ball bearings; beaded line; adjustable <2-3> m cord; sponge handles
计数器; 滚珠轴承; 竹节珠

# Beauty | bathroom shelf; sensitive skin; travel bag | 浴室; 敏感肌; 旅行包
Velourine; Sagemist; Halcyra; Petal Ledger; Dewmarque; Almondry; Moonpith
## Skin care | dry skin; city air; morning routines | 干性肌肤; 城市空气; 晨间护肤
oat milk; aloe vera; niacinamide; squalane
燕麦; 芦荟; 烟酰胺; 角鲨烷
### Face creams | face cream; moisturiser; day cream | 面霜; 保湿霜
<30-100> ml jar; ceramide blend; whipped texture; no sticky film; overnight repair
<30-100>毫升; 神经酰胺; 清爽不黏
### Cleansers | face wash; cleansing gel; foaming cleanser | 洗面奶; 洁面乳
<100-250> ml pump; low-pH foam; soap-free wash; pore care; make-up melting oils
<100-250>毫升; 低pH泡沫; 温和卸妆
### Sun creams | sun cream; sunscreen; sun lotion | 防晒霜; 防晒乳
SPF <20-50>; mineral filter; no white cast; sweat resistance; reef-kind recipe
SPF<20-50>; 物理防晒; 不泛白
### Face masks | sheet mask; face mask; clay mask | 面膜; 泥膜
<5-30> sachets; bio-cellulose cloth; kaolin; <10-20> minute treatment; serum-soaked fit
<5-30>片; 生物纤维膜布; 敷<10-20>分钟
## Hair care | curly hair; fine hair; salon looks | 卷发; 细软发质; 沙龙造型
argan oil; keratin; boar bristle; ceramic
摩洛哥坚果油; 角蛋白; 猪鬃; 陶瓷
### Shampoos | shampoo; hair wash; clarifying shampoo | 洗发水; 洗发露
<200-500> ml bottle; sulphate-free lather; scalp tingle; colour lock; rice protein
<200-500>毫升; 无硫酸盐; 头皮清凉
### Hair dryers | hair dryer; blow dryer; ionic dryer | 吹风机; 负离子电吹风
<1200-2400> W motor; cool shot; diffuser nozzle; <2-4> heat settings; folding handle
<1200-2400>瓦; 冷风键; 扩散风嘴
### Hairbrushes | hairbrush; paddle brush; detangling brush | 梳子; 气垫梳
flexible bristles; air cushion base; vent gaps; static-free pins; scalp massage tips
柔韧梳齿; 气垫底; 防静电
## Make-up | evening looks; quick touch-ups; stage work | 晚妆; 补妆; 舞台
jojoba; vitamin E; mica; synthetic bristle
荷荷巴油; 维生素E; 云母; 人造纤维毛
### Lipsticks | lipstick; lip colour; lip tint | 口红; 唇釉
satin finish; <4-12> hour wear; bullet tip; transfer-proof pigment; tinted shine
缎面质地; <4-12>小时持妆; 不沾杯
### Mascaras | mascara; lash ink; volume mascara | 睫毛膏; 浓密睫毛膏
curved wand; tubing formula; smudge-free film; fibre lengthening; warm-water removal
弯刷头; 不晕染; 温水可卸
### Make-up brushes | make-up brush; powder brush; blending brush | 化妆刷; 粉底刷
<5-18> piece roll; tapered tip; dense bristles; angled liner; washable ferrule
<5-18>支; 锥形刷头; 浓密刷毛
## Bath and body | quiet evenings; gifts; winter skin | 放松夜晚; 送礼; 冬季护肤
shea butter; lavender; sea salt; olive oil
乳木果油; 薰衣草; 海盐; 橄榄油
### Soaps | soap bar; hand soap; bath soap | 香皂; 手工皂
<80-200> g bar; cold-process cure; creamy lather; poppy seed scrub; paper band
<80-200>克; 冷制工艺; 绵密泡沫
### Bath salts | bath salts; bath soak; bath bomb | 浴盐; 泡澡球
<300-1000> g tub; magnesium flakes; fizzing release; muscle relief; dried petals
<300-1000>克; 镁盐; 干花瓣
### Body lotions | body lotion; body butter; hand cream | 身体乳; 护手霜
<50-400> ml tube; <24-72> hour moisture; quick soak-in; urea <5-10> percent; velvet feel
<50-400>毫升; <24-72>小时保湿; 快速吸收

# Tools | workshop; garage; first-time renovators | 工坊; 车库; 新手装修
Gritlock; Anvilane; Torqwell; Hewn & Hasp; Brackenbolt; Sawpit Row; Plumbary
## Power tools | flat-pack furniture; old floors; renovation | 组装家具; 旧地板; 翻新
magnesium housing; carbide; glass-filled nylon
镁合金机身; 硬质合金; 玻纤尼龙
### Cordless drills | cordless drill; drill driver; impact driver | 充电电钻; 冲击钻
<12-20> V battery; <30-90> Nm torque; keyless chuck; <15-25> clutch stops; belt hook
<12-20>伏电池; <30-90>牛米扭矩; 免钥匙夹头
### Sanders | orbital sander; sanding machine; detail sander | 砂光机; 打磨机
<120-240> grit discs; dust canister; <6000-14000> orbits a minute; hook-and-loop pad; speed wheel
<120-240>目砂纸; 集尘盒; 粘扣底盘
### Jigsaws | jigsaw; scroll saw; jigsaw cutter | 曲线锯; 电动线锯
<65-135> mm cut in timber; pendulum stroke; bevel shoe; blade blower; T-shank clamp
木材切深<65-135>毫米; 摆动切割; 斜切底板
### Heat guns | heat gun; hot air gun; paint stripper | 热风枪; 烘枪
<350-650> degree airflow; <3-5> nozzles; cool-down mode; hands-free stand; shrink-wrap reflector
<350-650>度出风; <3-5>个风嘴; 冷却模式
## Workshop hand tools | quick repairs; apprentices; car boots | 快速维修; 学徒; 车载备用
chrome vanadium; hickory; drop-forged steel; fibreglass
铬钒钢; 山核桃木; 锻钢; 玻璃纤维
### Screwdrivers | screwdriver; bit driver; screwdriver set | 螺丝刀; 螺丝批套装
<6-60> bits; magnetised tips; ratchet collar; precision heads; insulated shaft
<6-60>个批头; 磁性批尖; 棘轮
### Hammers | hammer; claw hammer; mallet | 锤子; 羊角锤
<200-900> g head; nail-pulling claw; shock-damping shaft; milled face; magnet nail slot
<200-900>克锤头; 起钉爪; 减震柄
### Pliers | pliers; wire cutters; combination pliers | 钳子; 老虎钳
<150-250> mm length; serrated jaws; induction-hardened cutters; spring hinge; dipped handles
<150-250>毫米; 锯齿钳口; 高频淬火刃口
### Spirit levels | spirit level; bubble level; laser level | 水平尺; 激光水平仪
<20-180> cm rail; <2-3> vials; magnet edge; ruler marks; plumb sight
<20-180>厘米; <2-3>个水准泡; 磁性底边
## Decorating | feature walls; window frames; ceilings | 背景墙; 窗框; 天花板
synthetic filament; microfibre; washi paper; beech
合成纤维; 超细纤维; 和纸; 榉木
### Paint brushes | paint brush; sash brush; cutting-in brush | 油漆刷; 角刷
<12-100> mm width; tapered filaments; no shedding; angled edge; seamless ferrule
<12-100>毫米宽; 锥形刷丝; 不掉毛
### Paint rollers | paint roller; roller kit; emulsion roller | 滚筒刷; 涂料滚筒
<100-300> mm sleeve; <5-18> mm nap; extension pole; paint tray; spatter guard
<100-300>毫米筒套; <5-18>毫米绒长; 加长杆
### Masking tapes | masking tape; painter's tape; edge tape | 美纹纸胶带; 遮蔽胶带
<19-50> mm by <25-50> m; clean peel; sharp paint lines; UV stability; low tack
<19-50>毫米宽; 不留残胶; 边线清晰
## Protection | noisy sites; dusty cuts; winter jobs | 嘈杂工地; 粉尘切割; 冬季施工
goatskin; polycarbonate; nitrile; ABS shell
山羊皮; 聚碳酸酯; 丁腈; ABS外壳
### Work gloves | work gloves; safety gloves; rigger gloves | 劳保手套; 工作手套
cut level <3-5>; touchscreen fingertips; knitted cuff; dotted palm; knuckle padding
防割<3-5>级; 可触屏指尖; 加厚掌面
### Safety goggles | safety goggles; protective glasses; eye shields | 护目镜; 防护眼镜
anti-fog lens; side vents; fits over spectacles; impact mark; soft nose bridge
防雾镜片; 侧面通气; 可戴近视镜
### Ear defenders | ear defenders; ear muffs; hearing protection | 隔音耳罩; 护耳器
<24-36> dB reduction; folding headband; gel cushions; padded band; high-visibility cups
降噪<24-36>分贝; 折叠头带; 软垫
"""

COLOURS = """black; white; slate grey; navy; forest green; mustard; terracotta red; sand; sky blue;
plum; charcoal; cream; teal; coral"""
COLOURS_ZH = "黑色; 白色; 深灰; 藏蓝; 墨绿; 姜黄; 砖红; 米色; 天蓝; 紫红; 奶油白; 珊瑚色"
SIZES = "small; medium; large; compact; extra large; slim; standard; travel size; mini"
SIZES_ZH = "小号; 中号; 大号; 加大号; 迷你; 标准款; 旅行装"
PACKS = "pack of <2-6>; single; <2-12> pcs; twin pack; <2-4>-piece set"
PACKS_ZH = "<2-6>件装; 单只装; 两只装; <2-12>个"

TITLES = (
    "{brand} {noun}, {trait}",
    "{brand} {material} {noun} - {colour}",
    "{noun} by {brand}, {material}, {trait}",
    "{brand} {model} {noun} with {trait}",
    "{colour} {noun} for {use}",
    "{brand} {size} {noun} | {trait} | {colour}",
    "{noun} {model}",
    "{brand} - {noun} for {use} ({pack})",
    "{material} {noun}, {size}, {colour}, {brand}",
    "{brand} {noun} with {trait} & {trait2}, {pack}",
    "New! {brand} {size} {noun} ({colour})",
    '"{brand}" {material} {noun}, {trait} - {model}',
    "{pack}: {noun} with {trait}, ideal for {use}",
    "{noun} + {noun2} | {brand} {model} | {size}",
    "{brand} {model} - {trait}, {colour}",
    "{brand} {size} {material} {model}",
)
TITLES_ZH = (
    "{brand} {noun} {trait} {colour}",
    "{brand}{material}{noun} {size} {use}适用",
    "{noun}{noun2} {brand} {model} {trait}",
    "【{brand}】{colour}{noun}，{trait}，{pack}",
    "{use}{noun} {material} {trait} {trait2}",
    "{brand} {model} {noun} {noun_en} {size}",
    "{scene}{noun} {noun_en} {trait} {pack}",
    "{size}{material}{noun} {colour} {brand}",
)

# Sentences about this very item, its branch or its department.
OWN = (
    "Your new {noun}: {trait} and {trait2}.",
    "Look for {trait}: it sets the {noun} apart.",
    "Features: {trait}; {trait2}; {trait3}.",
    "Our {noun2}: made with {material}, built for {use}.",
    "{brand} designed it for {use}.",
    "The {material} keeps its looks for years; suits {use}.",
    "You get {trait}, so that your {noun2} can do the job without fuss.",
    "Good for: {scene}, {use}; {trait} included.",
    "In short: {scene}, {use}, {trait2}.",
    "Details - type: {noun}; material: {material}; colour: {colour}; model: {model}.",
    "Our {size} {noun} in {colour}, now with {trait2}.",
    "Looking for {noun2}? You will like {trait3}.",
)
# Sentences that occur across all categories: they say nothing about the leaf, or point elsewhere.
SHARED = (
    "Delivered in plain cardboard without plastic.",
    "Please check the dimensions before ordering.",
    "Colours may look slightly different on your screen.",
    "A two-year guarantee is included; keep your receipt.",
    "Wipe with a damp cloth and leave to dry.",
    "Our team answers questions on working days.",
    "A fine present for birthdays, housewarmings and holidays.",
    "Returns are free within {number} days.",
    "Spare parts can be ordered for ten years.",
    "Quality is checked by hand before shipping.",
    "Winner of our readers' poll, with an average of 4.{digit} out of 5.",
    "Keep out of reach of small children.",
    "The box measures {number} x {number2} x {digit} cm and weighs {weight} g.",
    "Available in several sizes and colours, {colour} among them.",
    "Customers often buy this one too: {other}.",
    "Goes nicely with our {other}, sold separately.",
    "Not to be confused with the {other} of the same series.",
    "Item no. {model}, batch {number}{number2}.",
    "One of {number} best sellers this season.",
    "Simple, sturdy and easy to store.",
)
OWN_ZH = (
    "这款{noun}配有{trait}和{trait2}。",
    "特点：{trait}；{trait2}；{trait3}。",
    "选用{material}，适合{use}。",
    "{brand}专为{use}打造的{noun2}。",
    "{scene}常备的{noun}，{trait}更省心。",
    "参数 - 品类：{noun}；材质：{material}；颜色：{colour}；型号：{model}。",
    "{trait}，让{noun2}用起来更顺手。",
    "{size}{noun}，{colour}外观，{trait3}。",
)
SHARED_ZH = (
    "支持{number}天无理由退货。",
    "不同屏幕显示略有色差，请以实物为准。",
    "下单前请核对尺寸，手工测量可能有误差。",
    "两年质保，请保留购买凭证。",
    "纸箱包装，不含塑料。",
    "生日、乔迁、节日送礼皆宜。",
    "客服工作日在线解答。",
    "包装尺寸{number} x {number2} x {digit}厘米，重{weight}克。",
    "许多顾客同时购买{other}。",
    "可与本店{other}搭配使用。",
    "出厂前逐件检验。",
    "用湿布擦拭后晾干即可。",
)
