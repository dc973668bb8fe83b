"""CUDA devices that compute on the CPU: what only a GPU refuses or reorders, without a GPU.

A tensor on a simulated device is a :class:`DeviceTensor`: it says that it is on ``cuda:N``, and
holds a CPU tensor that has its values. Each operation of torch passes :func:`_run`, which refuses
what CUDA refuses and repeats what CUDA does otherwise:

- tensors of two devices in one operation, and NumPy's view of a device's memory, are errors;
- sums by atomic additions (``index_add_``, ``scatter_add_``, and so the backward passes of
  ``index_select`` and ``gather``) add in a random order;
- a copy to the host that does not block (``non_blocking=True``) holds garbage until the host waits
  for its stream or for an event behind it;
- a copy from pinned memory that does not block reads the memory at the latest moment before its
  first use;
- a tensor that one stream makes is an error in another stream that has not waited for it.

Not simulated: time, memory, roundings of CUDA's own products, captured graphs, and kernels that
torch compiles. Autocast to bfloat16 follows the CPU's list of operations.

Every operation is counted (:class:`Counts`), so that launches and waits of a piece of work can be
compared. The counts are estimates: one for each operation that is no view.
"""

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import ContextDecorator, contextmanager, nullcontext
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map_only, tree_unflatten

aten = torch.ops.aten

# Operations that take tensors of two devices.
ACROSS_DEVICES = {
    aten.copy_.default,
    aten._to_copy.default,
    aten.index.Tensor,
    aten.index_put.default,
    aten.index_put_.default,
    aten._index_put_impl_.default,
}
# Operations whose result has a size, or is a value, that the host must know.
WAITING = {
    aten._local_scalar_dense.default,
    aten.nonzero.default,
    aten.equal.default,
    aten.masked_select.default,
    aten.repeat_interleave.Tensor,
    aten.bincount.default,
    aten._unique2.default,
    aten.unique_dim.default,
    aten.unique_consecutive.default,
}
# Operations that change no memory and start no kernel, views aside.
FREE = {
    aten.detach.default,
    aten.alias.default,
    aten.empty.memory_format,
    aten.empty_strided.default,
    aten.empty_like.default,
    aten.new_empty.default,
    aten.new_empty_strided.default,
    aten.lift_fresh.default,
    aten._unsafe_view.default,
    aten.is_same_size.default,
    aten.resize_.default,
}


@dataclass
class Counts:
    """What was asked of the devices.

    Attributes:
        launches: operations that compute or copy.
        waits: times that the host waited for a device.
        to_device: bytes copied to a device.
        to_host: bytes copied from one.
        operations: the launches by name.
    """

    launches: int = 0
    waits: int = 0
    to_device: int = 0
    to_host: int = 0
    operations: dict[str, int] = field(default_factory=dict)


class Stream:
    """A stream: what it has begun, what it has waited for, and copies that are not done."""

    def __init__(self, device: Any = None, **_: Any) -> None:
        """Begin with all that the device has done."""
        self.device = _index(device)
        self.tick = self.done = 0
        _state.every.append(self)
        self.seen: dict[Stream, int] = {}
        self.pending: list[tuple[int, Callable[[], Any]]] = []

    def wait_stream(self, other: "Stream") -> None:
        """Take what another stream has begun as done."""
        self._wait({**other.seen, other: other.tick})

    def wait_event(self, event: "Event") -> None:
        """Take what was begun before an event as done."""
        self._wait(event.seen)

    def _wait(self, seen: dict["Stream", int]) -> None:
        for stream, tick in seen.items():
            self.seen[stream] = max(tick, self.seen.get(stream, 0))

    def record_event(self, event: "Event | None" = None) -> "Event":
        """Record an event behind what was begun."""
        event = event or Event()
        event.record(self)
        return event

    def synchronize(self) -> None:
        """Let the host wait."""
        _wait(self)


class Event:
    """A moment of a stream."""

    def __init__(self, *_: Any, **__: Any) -> None:
        """Record nothing yet."""
        self.seen: dict[Stream, int] = {}
        self.is_done = True

    def record(self, stream: Stream | None = None) -> None:
        """Record what the stream has begun."""
        stream = stream or _current(_state.device)
        self.seen = {**stream.seen, stream: stream.tick}
        self.is_done = False

    def synchronize(self) -> None:
        """Let the host wait."""
        _state.counts.waits += 1
        for stream, tick in self.seen.items():
            _finish(stream, tick)
        self.is_done = True

    def query(self) -> bool:
        """Whether all is done: never before the host has waited."""
        return self.is_done


class DeviceTensor(torch.Tensor):
    """A tensor on a simulated device; ``held`` has its values."""

    held: torch.Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, held: torch.Tensor, index: int) -> "DeviceTensor":
        """Wrap a tensor of the CPU."""
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device="cpu",
        )
        stream = _current(index)
        made.held, made.index, made.late = held, index, None
        made.made = stream, stream.tick
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Compute on the CPU, under the rules of a GPU."""
        return _run(func, args, kwargs or {})

    device = property(lambda self: torch.device("cuda", self.index))
    is_cuda = property(lambda self: True)
    is_cpu = property(lambda self: False)

    def get_device(self) -> int:
        """Number of the device."""
        return self.index

    def numpy(self, *_: Any, **__: Any) -> Any:
        """Refuse, as CUDA does."""
        raise TypeError(f"can't convert {self.device} device type tensor to numpy")

    def __array__(self, *_: Any, **__: Any) -> Any:
        """Refuse, as CUDA does."""
        self.numpy()

    def tolist(self) -> Any:
        """Copy to the host."""
        return self.cpu().tolist()

    def new_tensor(self, data: Any, **how: Any) -> torch.Tensor:
        """Make a tensor on this device."""
        return torch.tensor(data, **{"dtype": self.dtype, "device": self.device, **how})

    def untyped_storage(self) -> Any:
        """Where the values are: tensors that share them share it."""
        return self.held.untyped_storage()

    def storage(self) -> Any:
        """As :meth:`untyped_storage`."""
        return self.held.storage()

    def data_ptr(self) -> int:
        """Address of the first value."""
        return self.held.data_ptr()

    def record_stream(self, stream: Stream) -> None:
        """Keep the memory until a stream is done, which it is here."""

    def pin_memory(self, *_: Any) -> torch.Tensor:
        """Refuse, as CUDA does."""
        raise RuntimeError("cannot pin 'torch.cuda.FloatTensor', only dense CPU tensors")

    def __deepcopy__(self, memo: dict[int, Any]) -> torch.Tensor:
        """Copy the values too."""
        copied = DeviceTensor(self.held.clone(), self.index).requires_grad_(self.requires_grad)
        if getattr(self, "_is_param", False):
            copied._is_param = True
        return copied

    def __repr__(self, **_: Any) -> str:
        """Values and device."""
        return f"{self.held!r} on {self.device}"


class _Move(torch.autograd.Function):
    """A copy between host and device, or between devices."""

    @staticmethod
    def forward(ctx: Any, tensor: torch.Tensor, index: int | None, how: dict[str, Any]) -> Any:
        ctx.index = tensor.index if isinstance(tensor, DeviceTensor) else None
        return _moved(tensor, index, **how)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> Any:
        return _moved(grad, ctx.index, non_blocking=False), None, None


class _Mode(TorchDispatchMode):
    """Sends what names a simulated device to it."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class _State:
    """Of the simulation: devices, streams, counts, and pinned memory."""

    def __init__(self) -> None:
        self.n_devices = 0
        self.device = 0
        self.counts = Counts()
        self.order = random.Random(0)
        self.streams: dict[tuple[int, int], Stream] = {}
        self.defaults: dict[int, Stream] = {}
        self.every: list[Stream] = []
        self.generators: dict[int, int] = {}
        self.pinned: list[torch.Tensor] = []
        self.real: dict[str, Any] = {}


_state = _State()


def _index(device: Any) -> int:
    if device is None:
        return _state.device
    if isinstance(device, int):
        return device
    number = torch.device(device).index
    return _state.device if number is None else number


def _current(index: int) -> Stream:
    own = _state.streams.get((threading.get_ident(), index))
    if own is None:
        own = _state.defaults.setdefault(index, Stream(index))
    return own


# Operations.


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Run an operation of torch, on a simulated device if it names one or takes a tensor there."""
    leaves, tree = tree_flatten((args, kwargs))
    own = [leaf for leaf in leaves if isinstance(leaf, DeviceTensor)]
    index = own[0].index if own else None
    named = torch.device(kwargs.get("device") or "cpu")
    if named.type == "cuda":
        index = _index(named)
    # Beside tensors of a device, ``cpu`` is what autograd's C++ takes these for. Where a program
    # says it, the copy is made by ``Tensor.to`` or ``Tensor.cpu``, which do not come here.
    if index is None:
        return _on_host(func, args, kwargs)
    if func is aten._to_copy.default:
        return _moved(args[0], index, **{n: v for n, v in kwargs.items() if n != "device"})

    # One device, and a stream that has waited for what it reads.
    stream = _current(index)
    _check_devices(func, leaves, own, index)
    for tensor in own:
        _arrive(tensor)
        _check_stream(func, tensor, _current(tensor.index))
    if func is aten.copy_.default:
        return _copied(*args, **kwargs)

    # The same on the CPU.
    n_launches = _count(func, leaves)
    if func in WAITING or _is_masked(func, args):
        _wait(stream)
    stream.tick += n_launches
    held_args, held_kwargs = tree_unflatten(
        [leaf.held if isinstance(leaf, DeviceTensor) else leaf for leaf in leaves], tree
    )
    held_kwargs = {n: v for n, v in held_kwargs.items() if n not in ("device", "pin_memory")}
    result = COMPUTED.get(func, func)(*held_args, **held_kwargs)

    # What was written in place is the caller's tensor; the rest is new.
    of_held = {id(tensor.held): tensor for tensor in own}
    if func._schema.is_mutable:
        for tensor in own:
            if tensor.shape != tensor.held.shape:
                raise NotImplementedError(f"{func} changes a shape")
            tensor.made = stream, stream.tick

    def wrap(tensor: torch.Tensor) -> torch.Tensor:
        known = of_held.get(id(tensor))
        return DeviceTensor(tensor, index) if known is None else known

    return tree_map_only(torch.Tensor, wrap, result)


def _on_host(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """An operation of the host; pinned memory is remembered."""
    is_pinned = kwargs.get("pin_memory")
    if func is aten._to_copy.default or not is_pinned:
        return func(*args, **{n: v for n, v in kwargs.items() if n != "pin_memory"})
    made = func(*args, **{n: v for n, v in kwargs.items() if n != "pin_memory"})
    _state.pinned.append(made)
    return made


def _check_devices(
    func: Any, leaves: list[Any], own: list[DeviceTensor], index: int | None
) -> None:
    """Refuse tensors of two devices, and a generator of another one."""
    if func not in ACROSS_DEVICES:
        devices = {leaf.device for leaf in leaves if isinstance(leaf, torch.Tensor) and leaf.dim()}
        if len(devices) > 1 or (own and own[0].dim() == 0 and len({t.index for t in own}) > 1):
            found = " and ".join(sorted(map(str, devices)))
            raise RuntimeError(
                f"Expected all tensors to be on the same device, found {found}: {func}"
            )
    for leaf in leaves:
        if isinstance(leaf, torch._C.Generator) and _state.generators.get(leaf._cdata) != index:
            raise RuntimeError(f"Expected a 'cuda' device type for generator: {func}")


def _check_stream(func: Any, tensor: DeviceTensor, stream: Stream) -> None:
    """Refuse what another stream may not have made yet."""
    maker, tick = tensor.made
    if maker is not stream and max(stream.seen.get(maker, 0), maker.done) < tick:
        raise RuntimeError(f"{func} reads what another stream makes, and has not waited for it")


def _count(func: Any, leaves: list[Any]) -> int:
    """Count an operation: 0 if it starts no kernel."""
    if func in FREE or func.is_view:
        return 0
    counts, name = _state.counts, str(func).removeprefix("aten.")
    counts.launches += 1
    counts.operations[name] = counts.operations.get(name, 0) + 1
    return 1


def _is_masked(func: Any, args: Any) -> bool:
    """Whether a mask selects: how much, the host must know."""
    if func not in ACROSS_DEVICES or func in (aten.copy_.default, aten._to_copy.default):
        return False
    return any(index is not None and index.dtype == torch.bool for index in args[1])


def _wait(stream: Stream) -> None:
    """Let the host wait for a stream."""
    _state.counts.waits += 1
    _finish(stream, stream.tick)


def _finish(stream: Stream, tick: int) -> None:
    """Do what the host has waited for."""
    stream.done = max(stream.done, tick)
    while stream.pending and stream.pending[0][0] <= tick:
        stream.pending.pop(0)[1]()


# Copies.


def _moved(
    tensor: torch.Tensor,
    index: int | None,
    dtype: torch.dtype | None = None,
    non_blocking: bool = False,
    memory_format: torch.memory_format | None = None,
    **_: Any,
) -> torch.Tensor:
    """Copy a tensor to the host (None) or to a device, which may be its own."""
    if not isinstance(tensor, DeviceTensor):
        if index is None:
            return tensor.clone() if dtype is None else tensor.to(dtype, copy=True)
        target = DeviceTensor(torch.empty_like(tensor, dtype=dtype), index)
        if not non_blocking or not _is_pinned(tensor):
            return _copied(target, tensor)
        _copied(target, tensor, non_blocking=True)  # counts; the values are read once more, late
        target.late = lambda: target.held.copy_(tensor)
        return target
    _arrive(tensor)
    held = torch.empty_like(tensor.held, dtype=dtype)
    if index is not None:
        return _copied(DeviceTensor(held, index), tensor, non_blocking)
    if non_blocking:
        _state.pinned.append(held)
    return _copied(held, tensor, non_blocking)


def _copied(target: torch.Tensor, source: torch.Tensor, non_blocking: bool = False) -> torch.Tensor:
    """Copy in the order of streams."""
    counts = _state.counts
    counts.launches += 1
    counts.operations["copy"] = counts.operations.get("copy", 0) + 1
    if isinstance(target, DeviceTensor):
        stream = _current(target.index)
        stream.tick += 1
        target.made = stream, stream.tick
        if isinstance(source, DeviceTensor):
            _check_stream(aten.copy_.default, source, _current(source.index))
            target.held.copy_(source.held)
            return target
        counts.to_device += source.nbytes
        target.held.copy_(source)
        counts.waits += source.dim() > 0 and not (non_blocking and _is_pinned(source))
        return target

    # To the host: at once, or when the host has waited.
    _check_stream(aten.copy_.default, source, stream := _current(source.index))
    counts.to_host += source.nbytes
    if not non_blocking or not _is_pinned(target):
        _wait(stream)
        return target.copy_(source.held)
    values = source.held.clone()
    target.fill_(float("nan") if target.is_floating_point() else 77)
    stream.tick += 1
    stream.pending.append((stream.tick, lambda: target.copy_(values)))
    return target


def _arrive(tensor: DeviceTensor) -> None:
    """Do the copy that fills a tensor, if it has not been used."""
    copy, tensor.late = tensor.late, None
    if copy:
        copy()


def _is_pinned(tensor: torch.Tensor) -> bool:
    pointer = tensor.untyped_storage().data_ptr()
    return any(pointer == pinned.untyped_storage().data_ptr() for pinned in _state.pinned)


# What a GPU computes otherwise.


def _shuffled(n: int) -> torch.Tensor:
    numbers = list(range(n))
    _state.order.shuffle(numbers)
    return torch.tensor(numbers, dtype=torch.int64)


def _index_add(operation: Any) -> Callable[..., torch.Tensor]:
    def run(own: Any, dim: int, index: Any, source: Any, **options: Any) -> Any:
        order = _shuffled(index.numel())
        return operation(own, dim, index[order], source.index_select(dim, order), **options)

    return run


def _scatter_add(operation: Any) -> Callable[..., torch.Tensor]:
    def run(own: Any, dim: int, index: Any, source: Any, **options: Any) -> Any:
        order = _shuffled(index.shape[dim] if index.dim() else 0)
        if not index.numel() or not isinstance(source, torch.Tensor):
            return operation(own, dim, index, source, **options)
        source = source[tuple(slice(size) for size in index.shape)]
        index, source = index.index_select(dim, order), source.index_select(dim, order)
        return operation(own, dim, index, source, **options)

    return run


def _wide_product(left: torch.Tensor, right: torch.Tensor, out_dtype: torch.dtype) -> torch.Tensor:
    if left.dtype not in (torch.bfloat16, torch.float16) or left.dtype != right.dtype:
        raise RuntimeError("out_dtype needs two factors of bfloat16 or float16")
    return left.to(out_dtype) @ right.to(out_dtype)


COMPUTED: dict[Any, Callable[..., Any]] = {
    aten.index_add.default: _index_add(aten.index_add.default),
    aten.index_add_.default: _index_add(aten.index_add_.default),
    aten.scatter_add.default: _scatter_add(aten.scatter_add.default),
    aten.scatter_add_.default: _scatter_add(aten.scatter_add_.default),
    aten.mm.dtype: _wide_product,
}


# What torch.cuda says.


class _Generator(torch.Generator):
    """A generator of a simulated device."""

    def __new__(cls, device: Any = "cpu") -> "_Generator":
        made = super().__new__(cls)
        device = torch.device(device)
        if device.type == "cuda":
            _state.generators[made._cdata] = _index(device)
        return made


class _Device:
    """``with torch.cuda.device(1):``"""

    def __init__(self, device: Any) -> None:
        self.index = _index(device)

    def __enter__(self) -> None:
        self.before, _state.device = _state.device, self.index

    def __exit__(self, *_: Any) -> None:
        _state.device = self.before


@contextmanager
def _stream(stream: Stream | None) -> Iterator[None]:
    """``with torch.cuda.stream(stream):``"""
    if stream is None:
        yield
        return
    key = threading.get_ident(), stream.device
    before = _state.streams.get(key)
    _state.streams[key] = stream
    try:
        yield
    finally:
        _state.streams[key] = before or _state.defaults.setdefault(
            stream.device, Stream(stream.device)
        )


def _synchronize(device: Any = None) -> None:
    """Let the host wait for all streams of a device."""
    _state.counts.waits += 1
    for stream in list(_state.every):
        if stream.device == _index(device):
            _finish(stream, stream.tick)


def _set_device(device: Any) -> None:
    _state.device = _index(device)


PROPERTIES = SimpleNamespace(
    name="simulated", major=9, minor=0, total_memory=80 * 2**30, multi_processor_count=132
)
CUDA: dict[str, Any] = {
    "_lazy_init": lambda: None,
    "is_available": lambda: True,
    "device_count": lambda: _state.n_devices,
    "current_device": lambda: _state.device,
    "set_device": _set_device,
    "device": _Device,
    "get_device_name": lambda device=None: PROPERTIES.name,
    "get_device_properties": lambda device=None: PROPERTIES,
    "get_device_capability": lambda device=None: (9, 0),
    "is_bf16_supported": lambda including_emulation=True: True,
    "mem_get_info": lambda device=None: (PROPERTIES.total_memory, PROPERTIES.total_memory),
    "memory_allocated": lambda device=None: 0,
    "max_memory_allocated": lambda device=None: 0,
    "reset_peak_memory_stats": lambda device=None: None,
    "empty_cache": lambda: None,
    "is_current_stream_capturing": lambda: False,
    "manual_seed_all": lambda seed: None,
    "synchronize": _synchronize,
    "Stream": Stream,
    "Event": Event,
    "stream": _stream,
    "current_stream": lambda device=None: _current(_index(device)),
}


def _to(tensor: torch.Tensor, *args: Any, **options: Any) -> torch.Tensor:
    """``Tensor.to``: between host and device a copy, else as it was."""
    copy = options.pop("copy", False)
    if args and isinstance(args[0], torch.Tensor):
        args = (args[0].device, args[0].dtype, *args[1:])
    device, dtype, non_blocking, _ = torch._C._nn._parse_to(*args, **options)
    own = tensor.index if isinstance(tensor, DeviceTensor) else None
    index = own
    if device is not None:
        index = _index(device) if device.type == "cuda" else None
    if index == own:
        return _state.real["to"](tensor, tensor.dtype if dtype is None else dtype, copy=copy)
    if dtype is not None and dtype != tensor.dtype and own is None:
        tensor = _state.real["to"](tensor, dtype)  # the host converts, as torch does it
    moved = _Move.apply(tensor, index, {"non_blocking": non_blocking})
    return moved if dtype is None else _state.real["to"](moved, dtype)


def _as_tensor(data: Any, dtype: Any = None, device: Any = None) -> torch.Tensor:
    if isinstance(data, DeviceTensor):
        return data.to(data.device if device is None else device, dtype or data.dtype)
    return _state.real["as_tensor"](data, dtype=dtype, device=device)


def _tensor(data: Any, **options: Any) -> torch.Tensor:
    device = options.pop("device", None)
    device = torch.empty(0).device if device is None else torch.device(device)
    is_cuda = device.type == "cuda"
    made: torch.Tensor = _state.real["tensor"](data, device="cpu" if is_cuda else device, **options)
    return made.to(device) if is_cuda else made


def _pin_memory(tensor: torch.Tensor, device: Any = None) -> torch.Tensor:
    if _is_pinned(tensor):
        return tensor
    _state.pinned.append(tensor.clone())
    return _state.pinned[-1]


class _Nothing(nullcontext, ContextDecorator):
    """``torch.inference_mode(False)``, also before a function."""


def _attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> torch.Tensor:
    """Attention by its definition, one launch: the CPU's own makes masks where C++ says it is."""
    if not isinstance(query, DeviceTensor):
        options = {"dropout_p": dropout_p, "is_causal": is_causal, "scale": scale}
        attend = _state.real["attention"]
        return attend(query, key, value, attn_mask, **options, enable_gqa=enable_gqa)
    if torch.is_autocast_enabled("cpu"):
        query, key, value = (one.to(torch.bfloat16) for one in (query, key, value))
        if attn_mask is not None and attn_mask.dtype != torch.bool:
            attn_mask = attn_mask.to(torch.bfloat16)
    if attn_mask is not None and attn_mask.dtype not in (torch.bool, query.dtype):
        raise RuntimeError(f"Expected attn_mask dtype to be bool or {query.dtype}")
    before = _state.counts.launches
    if enable_gqa:
        key, value = (
            one.repeat_interleave(query.size(-3) // one.size(-3), -3) for one in (key, value)
        )
    scores = (query @ key.transpose(-2, -1)) * (scale or query.size(-1) ** -0.5)
    if is_causal:
        attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=query.device).tril()
    if attn_mask is not None:
        is_bool = attn_mask.dtype == torch.bool
        scores = scores.masked_fill(~attn_mask, -torch.inf) if is_bool else scores + attn_mask
    shares = torch.dropout(torch._safe_softmax(scores, -1), dropout_p, train=True)
    attended = shares @ value
    _state.counts.launches = before + 1
    return attended


def start(n_devices: int = 1) -> None:
    """Simulate so many devices from here on, in this process and all of its threads."""
    _state.n_devices = n_devices
    for name, value in CUDA.items():
        setattr(torch.cuda, name, value)

    # The host's generator draws for all devices.
    for module in (torch.cuda, torch.cuda.random):
        module.get_rng_state = lambda device=None: torch.get_rng_state()
        module.set_rng_state = lambda state, device=None: torch.set_rng_state(state)
        module.get_rng_state_all = lambda: [torch.get_rng_state()] * n_devices
        module.set_rng_state_all = lambda states: torch.set_rng_state(states[0])

    # Methods of tensors, and what names a device elsewhere.
    _state.real = {
        "to": torch.Tensor.to,
        "as_tensor": torch.as_tensor,
        "tensor": torch.tensor,
        "attention": torch.nn.functional.scaled_dot_product_attention,
    }
    torch.Tensor.to = _to
    torch.Tensor.cpu = lambda tensor, **options: _to(tensor, "cpu", **options)
    torch.Tensor.cuda = lambda tensor, device=None, **options: _to(
        tensor, torch.device("cuda", _index(device)), **options
    )
    torch.Tensor.pin_memory = _pin_memory
    torch.Tensor.is_pinned = lambda tensor, device=None: _is_pinned(tensor)
    torch.as_tensor, torch.tensor = _as_tensor, _tensor
    torch.nn.functional.scaled_dot_product_attention = _attention
    # C++ gives no wrapped tensor of an inference mode to Python.
    torch.inference_mode = lambda mode=True: torch.no_grad() if mode else _Nothing()
    torch.Generator = _Generator
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    begin = torch.amp.autocast_mode.autocast.__init__

    def autocast(self: Any, device_type: str, *args: Any, **options: Any) -> None:
        begin(self, "cpu" if device_type == "cuda" else device_type, *args, **options)

    torch.amp.autocast_mode.autocast.__init__ = autocast

    # Every thread has its own stack of modes.
    run = threading.Thread.run

    def run_on_devices(thread: threading.Thread) -> None:
        with _Mode():
            run(thread)

    threading.Thread.run = run_on_devices
    _Mode().__enter__()


@contextmanager
def counted() -> Iterator[Counts]:
    """Count what the block asks of the devices."""
    before, _state.counts = _state.counts, Counts()
    try:
        yield _state.counts
    finally:
        _state.counts = before
