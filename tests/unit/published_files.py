"""Small data sets in the forms in which they are published; all content is made up here.

Each function writes the files of one source into a folder, with the quirks that the published files
have, and returns what an import has to find.
"""

import gzip
import io
import json
import tarfile
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq


class Expected(NamedTuple):
    """What an import finds.

    Attributes:
        items: id to one of its texts.
        histories: user to the ids of the items, oldest first.
        times: user to the times, or None.
        read: interactions that the files contain.
        rejected: interactions that are rejected.
        item_rejects: rows of the catalogue that are rejected.
        left_out: interactions left out, by reason.
        splits: user to splits, or None.
    """

    items: dict[str, str]
    histories: dict[str, list[str]]
    times: dict[str, list[int] | None]
    read: int
    rejected: int
    item_rejects: int
    left_out: dict[str, int] | None = None
    splits: dict[str, list[str]] | None = None


def write(path: Path, text: str, encoding: str = "utf-8") -> None:
    """Write a text file, compressed where its name ends in .gz."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = text.encode(encoding)
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


def json_lines(*rows: object) -> str:
    return "".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows)


def movielens_1m(folder: Path) -> Expected:
    movies = (
        "1::Toys (1995)::Animation|Children's\n"
        "2::Misérables, Les (1995)::Drama\n"
        "3::Nameless::(no genres listed)\n"
        "2::Again (1996)::Drama\n"  # a repeated id
        "broken line\n"
    )
    ratings = (
        "1::2::5::978300760\n"
        "1::1::3::978300100\n"
        "2::3::4::978302109\n"
        "2::9::4::978302110\n"  # a movie without metadata
        "2::1::4\n"
        "2::1::4::soon\n"
    )
    write(folder / "movies.dat", movies, "latin-1")
    write(folder / "ratings.dat", ratings)
    write(folder / "users.dat", "1::F::1::10::48067\n")
    return Expected(
        {"1": "Toys (1995)", "2": "Misérables, Les (1995)", "3": "Nameless"},
        {"1": ["1", "2"], "2": ["3"]},
        {"1": [978300100, 978300760], "2": [978302109]},
        read=6,
        rejected=3,
        item_rejects=2,
    )


def movielens_csv(folder: Path) -> Expected:
    movies = (
        "movieId,title,genres\r\n"
        '1,"American President, The (1995)",Comedy|Drama\r\n'
        '2,"He said ""no"" — 千と千尋",(no genres listed)\r\n'
    )
    ratings = "userId,movieId,rating,timestamp\r\n7,2,3.5,1256677221\r\n7,1,0.5,1256677222\r\n"
    archive = folder / "ml-32m.zip"
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as out:
        out.writestr("ml-32m/movies.csv", movies)
        out.writestr("ml-32m/ratings.csv", ratings)
        out.writestr("ml-32m/tags.csv", "userId,movieId,tag,timestamp\r\n")
        out.writestr("__MACOSX/._movies.csv", "no text")
    return Expected(
        {"1": "American President, The (1995)", "2": 'He said "no" — 千と千尋'},
        {"7": ["2", "1"]},
        {"7": [1256677221, 1256677222]},
        read=2,
        rejected=0,
        item_rejects=0,
    )


def amazon_2023(folder: Path) -> Expected:
    meta = [
        {
            "main_category": "All Beauty",
            "title": f"Brush {n}",
            "average_rating": 4.8,
            "features": ["soft", "made of wood"],
            "description": [],
            "price": None,
            "images": [{"thumb": "https://x/1.jpg", "variant": "MAIN"}],
            "videos": [],
            "store": "Ünique" if n else None,
            "categories": ["Beauty", "Tools"],
            "details": {"Size": "10"},
            "parent_asin": f"B00{n}",
            "bought_together": None,
        }
        for n in range(3)
    ]
    write(folder / "meta_All_Beauty.jsonl.gz", json_lines(*meta, '{"title": "cut', "\n"))
    reviews = [
        {
            "rating": rating,
            "title": "Fine",
            "text": "Ünder <br />",
            "images": [],
            "asin": "VARIANT",
            "parent_asin": item,
            "user_id": user,
            "timestamp": time,
            "helpful_vote": 0,
            "verified_purchase": True,
        }
        for user, item, rating, time in (
            ("AE", "B001", 5.0, 1588687728923),
            ("AE", "B000", 4.0, 1588687728922),
            ("AE", "B001", 1.0, 1588687728999),  # the same item again
            ("AF", "B002", 1.0, 1588687728000),
            ("AF", "B00Z", 1.0, 1588687728001),  # without metadata
        )
    ]
    write(folder / "All_Beauty.jsonl.gz", json_lines(*reviews, {"user_id": "AF"}))
    return Expected(
        {"B000": "Brush 0", "B001": "Brush 1", "B002": "Brush 2"},
        {"AE": ["B000", "B001", "B001"], "AF": ["B002"]},
        {"AE": [1588687728922, 1588687728923, 1588687728999], "AF": [1588687728000]},
        read=6,
        rejected=2,
        item_rejects=1,
    )


def amazon_2023_benchmark(folder: Path) -> Expected:
    meta = [{"title": f"Brush {n}", "parent_asin": f"B00{n}"} for n in range(3)]
    write(folder / "raw/meta_categories/meta_Gift_Cards.jsonl", json_lines(*meta))
    header = "user_id,parent_asin,rating,timestamp,history\n"
    files = {
        "train": "AE,B001,5.0,1588687728923,\nAF,B000,5.0,1588687728924,\n",
        "valid": "AE,B000,4.0,1588687728924,B001\n",
        "test": "AE,B002,4.0,1588687728925,B001 B000\n",
    }
    for split, text in files.items():
        path = folder / f"benchmark/5core/last_out_w_his/Gift_Cards.{split}.csv.gz"
        write(path, header + text)
    write(folder / "raw/review_categories/Gift_Cards.jsonl", json_lines({"not": "read"}))
    return Expected(
        {f"B00{n}": f"Brush {n}" for n in range(3)},
        {"AE": ["B001", "B000", "B002"], "AF": ["B000"]},
        {"AE": [1588687728923, 1588687728924, 1588687728925], "AF": [1588687728924]},
        read=4,
        rejected=0,
        item_rejects=0,
        splits={"AE": ["train", "valid", "test"], "AF": ["train"]},
    )


def amazon_2018(folder: Path) -> Expected:
    meta = [
        {
            "asin": "0001",
            "title": "Glue",
            "brand": "by\n        Acme",
            "category": ["Home", "Glue"],
        },
        {"asin": "0002", "title": "Tape", "category": ["Home", "</span></span>", "x"]},
        {"asin": "0003", "title": "var aPageStart = (new Date()).getTime();"},
        {"asin": "0001", "title": "Glue"},
    ]
    write(folder / "meta_Home.json.gz", json_lines(*meta))
    # Columns of 2018: item, user, rating, timestamp.
    write(folder / "Home.csv", "0001,A1,5.0,1404691200\n0002,A1,1.0,1404691100\n0003,A2,2.0,1\n")
    return Expected(
        {"0001": "Glue", "0002": "Tape"},
        {"A1": ["0002", "0001"]},
        {"A1": [1404691100, 1404691200]},
        read=3,
        rejected=1,
        item_rejects=2,
    )


def amazon_2014(folder: Path) -> Expected:
    meta = "".join(
        repr(row) + "\n"
        for row in (
            {"asin": "0001", "title": 'It\'s "glue"', "categories": [["Home", "Glue"]]},
            {"asin": "0002", "title": "Tape", "price": 1.0, "related": {"also_bought": ["0001"]}},
        )
    )
    write(folder / "meta_Home.json.gz", meta)
    reviews = [
        {"reviewerID": "A1", "asin": "0002", "overall": 5.0, "unixReviewTime": 1252800000},
        {"reviewerID": "A1", "asin": "0001", "overall": 3.0, "unixReviewTime": 1252800001},
    ]
    write(folder / "reviews_Home_5.json.gz", json_lines(*reviews))
    return Expected(
        {"0001": 'It\'s "glue"', "0002": "Tape"},
        {"A1": ["0002", "0001"]},
        {"A1": [1252800000, 1252800001]},
        read=2,
        rejected=0,
        item_rejects=0,
    )


def mind(folder: Path) -> Expected:
    def news(pid: str, title: str) -> str:
        return f'{pid}\tsports\tgolf\t{title}\tAn "abstract\thttps://x\t[{{"Label": "x"}}]\t[]\n'

    train = news("N1", 'A "quote') + news("N2", "Two") + news("N3", "Three")
    behaviors = (
        "1\tU1\t11/11/2019 9:05:58 AM\tN1 N2 N1\tN3-1 N2-0\n"
        "2\tU1\t11/11/2019 9:05:58 PM\tN1 N2 N1\tN1-0 N2-1\n"
        "3\tU2\t11/12/2019 12:00:01 AM\t\tN3-1 N1-1\n"
        "4\tU3\tyesterday\tN1\tN3-1\n"
    )
    dev = "1\tU1\t11/15/2019 8:00:00 AM\tN1 N2 N1\tN4-1 N1-0\n"
    for name, texts in {
        "MINDsmall_train": (train, behaviors),
        "MINDsmall_dev": (news("N1", 'A "quote') + news("N4", "Four"), dev),
    }.items():
        with zipfile.ZipFile(folder / f"{name}.zip", "w") as out:
            out.writestr("news.tsv", texts[0])
            out.writestr("behaviors.tsv", texts[1])
            out.writestr("entity_embedding.vec", "Q1\t0.1\n")
    return Expected(
        {"N1": 'A "quote', "N2": "Two", "N3": "Three", "N4": "Four"},
        {"U1": ["N1", "N2", "N1", "N3", "N2", "N4"], "U2": ["N3", "N1"]},
        {"U1": None, "U2": [1573516801, 1573516801]},
        read=16,
        rejected=2,
        item_rejects=0,
        left_out={"history_repeated": 6},
        splits={"U1": ["train"] * 5 + ["valid"], "U2": ["train", "train"]},
    )


def recbole(folder: Path) -> Expected:
    items = (
        "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\tlength:float\n"
        "1\tToy Story\t1995\tAnimation Comedy\t81.0\n"
        '2\tHe said "no\t1995\tDrama\t\n'
        '3\tShe said "yes\t1996\tDrama\t90\n'
    )
    log = (
        "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
        "196\t2\t3\t881250949\n"
        "196\t1\t3\t881250948.0\n"
        "186\t3\t3\t8.91717742e8\n"
        "186\t3\t3\n"
    )
    write(folder / "ml-100k.item", items)
    write(folder / "ml-100k.inter", log)
    return Expected(
        {"1": "Toy Story", "2": 'He said "no', "3": 'She said "yes'},
        {"196": ["1", "2"], "186": ["3"]},
        {"196": [881250948, 881250949], "186": [891717742]},
        read=4,
        rejected=1,
        item_rejects=0,
    )


def recbole_splits(folder: Path) -> Expected:
    header = "user_id:token\tproduct_id:token\ttimestamp:float\n"
    write(folder / "steam.item", "product_id:token\tapp_name:token_seq\n10\tCounter\n20\tTeam\n")
    write(folder / "steam.train.inter", header + "u1\t10\t5\n")
    write(folder / "steam.valid.inter", header + "u1\t20\t6\n")
    write(folder / "steam.test.inter", header + "u1\t10\t7\n")
    return Expected(
        {"10": "Counter", "20": "Team"},
        {"u1": ["10", "20", "10"]},
        {"u1": [5, 6, 7]},
        read=3,
        rejected=0,
        item_rejects=0,
        splits={"u1": ["train", "valid", "test"]},
    )


def lc_rec(folder: Path) -> Expected:
    items = {
        str(n): {"title": f"Item {n}", "description": "Long", "brand": "B", "categories": "A,B"}
        for n in range(4)
    }
    write(folder / "Arts.item.json", json.dumps(items))
    write(folder / "Arts.inter.json", json.dumps({"0": [3, 0, 3], "1": [1], "2": [2, 7]}))
    write(folder / "Arts.index.json", json.dumps({str(n): ["<a_1>", f"<b_{n}>"] for n in range(4)}))
    np.save(folder / "Arts.emb-llama-td.npy", np.arange(12, dtype=np.float32).reshape(4, 3))
    return Expected(
        {str(n): f"Item {n}" for n in range(4)},
        {"0": ["3", "0", "3"], "1": ["1"], "2": ["2"]},
        {"0": None, "1": None, "2": None},
        read=6,
        rejected=1,
        item_rejects=0,
    )


def yelp(folder: Path) -> Expected:
    business = [
        {
            "business_id": name,
            "name": f"Café {name}",
            "address": "1 Main St",
            "city": "Tucson",
            "state": "AZ",
            "stars": 4.5,
            "is_open": 1,
            "attributes": {"WiFi": "u'free'"},
            "categories": "Coffee & Tea, Food" if name == "b1" else None,
            "hours": None,
        }
        for name in ("b1", "b2")
    ]
    reviews = [
        {"review_id": f"r{n}", "user_id": user, "business_id": item, "stars": 4.0, "date": date}
        for n, (user, item, date) in enumerate(
            (
                ("u1", "b2", "2018-07-07 22:09:11"),
                ("u1", "b1", "2018-07-07 22:09:10"),
                ("u2", "b1", "07/07/2018"),
            )
        )
    ]
    with tarfile.open(folder / "yelp_dataset.tar", "w") as out:
        for name, rows in (("business", business), ("review", reviews)):
            data = json_lines(*rows).encode()
            member = tarfile.TarInfo(f"yelp_academic_dataset_{name}.json")
            member.size = len(data)
            out.addfile(member, io.BytesIO(data))
        link = tarfile.TarInfo("yelp_academic_dataset_user.json")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
        out.addfile(link)
    return Expected(
        {"b1": "Café b1", "b2": "Café b2"},
        {"u1": ["b1", "b2"]},
        {"u1": [1531001350, 1531001351]},
        read=3,
        rejected=1,
        item_rejects=0,
    )


def steam(folder: Path) -> Expected:
    games = (
        "{u'publisher': u'Kotoshiro', u'genres': [u'Action', u'Indie'], u'app_name': u'L\\u2122',"
        " u'title': u'Lost Summoner', u'price': 4.99, u'early_access': False, u'id': u'761140'}\n"
        "{u'app_name': u\"It's\", u'tags': [u'RPG'], u'id': u'20', u'metascore': None}\n"
        "{u'app_name': __import__('os').getcwd(), u'id': u'30'}\n"
        "{u'app_name': u'No id'}\n"
    )
    reviews = (
        "{u'username': u'Chaos', u'hours': 0.1, u'product_id': u'20', u'date': u'2017-12-17',"
        " u'text': u'good\\nfun', u'page': 1}\n"
        "{u'username': u'Chaos', u'product_id': u'761140', u'date': u'2017-12-16', u'text': u''}\n"
        "{u'username': u'\\u96ea', u'product_id': u'20', u'date': u'2011-01-01'}\n"
        "{u'product_id': u'20', u'date': u'2011-01-01'}\n"
    )
    write(folder / "steam_games.json.gz", games)
    write(folder / "steam_reviews.json.gz", reviews)
    return Expected(
        {"761140": "Lost Summoner", "20": "It's"},
        {"Chaos": ["761140", "20"], "雪": ["20"]},
        {"Chaos": [1513382400, 1513468800], "雪": [1293840000]},
        read=4,
        rejected=1,
        item_rejects=2,
    )


def goodreads(folder: Path) -> Expected:
    books = [
        {
            "book_id": pid,
            "title": title,
            "isbn": "",
            "description": "",
            "authors": [{"author_id": "1", "role": ""}],
            "publisher": "P",
            "popular_shelves": [{"count": "2", "name": "to-read"}],
        }
        for pid, title in (("27036533", "Ducks"), ("5", "Geese"))
    ]
    log = [
        {
            "user_id": "8842281e1d13",
            "book_id": pid,
            "is_read": False,
            "rating": 0,
            "date_added": date,
            "read_at": "",
        }
        for pid, date in (
            ("5", "Thu Aug 17 15:15:28 -0700 2017"),
            ("27036533", "Thu Aug 17 15:15:28 -0800 2017"),
            ("5", ""),
        )
    ]
    write(folder / "goodreads_books_poetry.json.gz", json_lines(*books))
    write(folder / "goodreads_interactions_poetry.json.gz", json_lines(*log))
    return Expected(
        {"27036533": "Ducks", "5": "Geese"},
        {"8842281e1d13": ["5", "27036533"]},
        {"8842281e1d13": [1503008128, 1503011728]},
        read=3,
        rejected=1,
        item_rejects=0,
    )


def kuairec(folder: Path) -> Expected:
    captions = (
        "video_id,manual_cover_text,caption,topic_tag,first_level_category_id,"
        "first_level_category_name,second_level_category_id,second_level_category_name,"
        "third_level_category_id,third_level_category_name\n"
        '0,UNKNOWN,"精神小伙, 路难走","[""美食"",""旅行""]",8,颜值,673,颜值随拍,-124,UNKNOWN\n'
        "1,封面,猫\r狗,[],8,颜值,673,UNKNOWN,-124,UNKNOWN\n"
        "2,UNKNOWN,,[],-124,UNKNOWN,-124,UNKNOWN,-124,UNKNOWN\n"  # no text at all
        "broken,x\n"
    )
    big = (
        "user_id,video_id,play_duration,video_duration,time,date,timestamp,watch_ratio\n"
        "0,1,13838,10867,2020-07-05 00:08:23.438,20200705,1593878903.438,1.273\n"
        "0,0,13665,10984,2020-07-05 00:08:23.437,20200705,1593878903.437,1.2\n"
        "5,1,851,7908,,,,0.1\n"
        "5,2,851,7908,,20200705,1593878903,0.1\n"
    )
    write(folder / "KuaiRec 2.0/data/big_matrix.csv", big)
    write(folder / "KuaiRec 2.0/data/small_matrix.csv", big)
    write(folder / "kuairec_caption_category.csv", captions)
    return Expected(
        {"0": "精神小伙, 路难走", "1": "猫 狗"},
        {"0": ["0", "1"]},
        {"0": [1593878903437, 1593878903438]},
        read=4,
        rejected=2,
        item_rejects=2,
    )


def onerec(folder: Path) -> Expected:
    captions = {"pid": [11, 12, 13], "dense_caption": ["猫", "狗", None]}
    pq.write_table(pa.table(captions), folder / "pid2caption.parquet")
    log = pa.table(
        {
            "uid": [1, 1, 2],
            "split": [0, 1, 5],
            "hist_video_pid": [[11, 12], [11, 12, 11], [11]],
            "target_video_pid": [[11], [12, 13], None],
        }
    )
    pq.write_table(log, folder / "onerec_bench_release.parquet")
    return Expected(
        {"11": "猫", "12": "狗"},
        {"1": ["11", "12", "11", "12"]},
        {"1": None},
        read=9,
        rejected=2,
        item_rejects=1,
        left_out={"history_repeated": 3},
        splits={"1": ["train", "train", "train", "test"]},
    )


SETS = {
    "movielens": movielens_1m,
    "movielens csv": movielens_csv,
    "amazon-2023": amazon_2023,
    "amazon-2023 benchmark": amazon_2023_benchmark,
    "amazon-2018": amazon_2018,
    "amazon-2018 of 2014": amazon_2014,
    "mind": mind,
    "recbole": recbole,
    "recbole splits": recbole_splits,
    "lc-rec": lc_rec,
    "yelp": yelp,
    "steam": steam,
    "goodreads": goodreads,
    "kuairec": kuairec,
    "onerec": onerec,
}


def beir(folder: Path) -> dict[str, dict[str, int]]:
    corpus = [
        {"_id": "4983", "title": "Microstructural — growth", "text": "Alterations", "metadata": {}},
        {"_id": "MED-10", "title": "", "text": "Statins", "metadata": {"url": "https://x"}},
        {"_id": "empty", "title": "", "text": ""},
        {"_id": "4983", "title": "again", "text": "again"},
    ]
    queries = [
        {"_id": "0", "text": "0-dimensional\tbiomaterials", "metadata": {}},
        {"_id": "PLAIN-2", "text": "Do statins help?", "metadata": {}},
        {"_id": "9", "text": "of the training set"},
    ]
    header = "query-id\tcorpus-id\tscore\n"
    with zipfile.ZipFile(folder / "tiny.zip", "w") as out:
        out.writestr("tiny/corpus.jsonl", json_lines(*corpus))
        out.writestr("tiny/queries.jsonl", json_lines(*queries))
        out.writestr("tiny/qrels/train.tsv", header + "9\t4983\t1\n")
        test = "0\t4983\t1\nPLAIN-2\tMED-10\t2\nPLAIN-2\tempty\t1\nPLAIN-2\t4983\tx\n"
        out.writestr("tiny/qrels/test.tsv", header + test)
    return {
        "passages": {"read": 4, "rejected": 2, "left_out": 0, "written": 2},
        "queries": {"read": 3, "rejected": 0, "left_out": 1, "written": 2, "judged_but_missing": 0},
        "judgements": {"read": 4, "rejected": 2, "written": 2},
    }


def msmarco(folder: Path) -> dict[str, dict[str, int]]:
    files = {
        "collection.tsv": '0\tThe presence of "communication\n1\tManhattan Projectâ\x80\x99s\n2\n',
        "queries.dev.small.tsv": "1048585\twhat is paula deen's brother\n2\t androgen receptor\n",
        "queries.dev.tsv": "3\tnot read\n",
        "qrels.dev.small.tsv": "1048585\t0\t1\t1\n7\t0\t0\t1\n",
        "qrels.dev.tsv": "3\t0\t0\t1\n",
    }
    with tarfile.open(folder / "collectionandqueries.tar.gz", "w:gz") as out:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text.encode())
            out.addfile(member, io.BytesIO(text.encode()))
    return {
        "passages": {"read": 3, "rejected": 1, "left_out": 0, "written": 2},
        "queries": {"read": 2, "rejected": 0, "left_out": 1, "written": 1, "judged_but_missing": 1},
        "judgements": {"read": 2, "rejected": 0, "written": 2},
    }


COLLECTIONS = {"beir": beir, "msmarco": msmarco}
