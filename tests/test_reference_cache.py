"""Reference log-probabilities on disk: to the bit, under their own key only, through crashes and side by side."""

import json
import os
import subprocess
import sys
import warnings
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pytest
import torch

from vlmpack.training import reference_rows
from vlmpack.training.reference_cache import CacheKey, ReferenceCache, ReferenceCacheError

KEY = CacheKey(weights="a1", processor="b2", settings="max_length=512")
OTHER = CacheKey(weights="a1", processor="b2", settings="max_length=513")


def content(number: int) -> bytes:
    return blake2b(str(number).encode(), digest_size=16).digest()


def values(number: int) -> torch.Tensor:
    """Two to five responses."""
    generator = torch.Generator().manual_seed(number)
    return -100 * torch.rand(2 + number % 4, generator=generator, dtype=torch.float64)


def many_values(number: int) -> torch.Tensor:
    """So many that writing them takes a while."""
    return -number - torch.arange(50_000, dtype=torch.float64)


def parts(cache: ReferenceCache) -> list[Path]:
    return sorted(cache.folder.glob("part-*.safetensors"))


def filled(folder: Path, rows: range, key: CacheKey = KEY, rank: int = 0) -> ReferenceCache:
    cache = ReferenceCache(folder, key, rank, flush_every=8)
    for number in rows:
        cache.add(content(number), values(number))
    cache.flush()
    return cache


def assert_holds(cache: ReferenceCache, rows: range) -> None:
    assert len(cache) == len(rows)
    for number in rows:
        assert torch.equal(cache.get(content(number)), values(number))


def test_values_come_back_to_the_bit_in_this_process_and_the_next(tmp_path):
    cache = filled(tmp_path, range(50))
    assert_holds(cache, range(50))
    assert_holds(ReferenceCache(tmp_path, KEY), range(50))
    assert len(parts(cache)) == 7  # 6 of 8 rows, one of 2


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_every_dtype_that_models_compute_in_is_kept(dtype, tmp_path):
    logps = torch.tensor([-1 / 3, -1e-30, -1234.5678], dtype=dtype, requires_grad=True)
    cache = ReferenceCache(tmp_path, KEY)
    cache.add(content(0), logps)
    cache.flush()
    assert torch.equal(ReferenceCache(tmp_path, KEY).get(content(0)).to(dtype), logps)


def test_rows_are_there_before_and_after_they_are_written(tmp_path):
    cache = ReferenceCache(tmp_path, KEY)
    cache.add(content(1), [-1.5, -2.5])
    assert content(1) in cache
    assert cache.get(content(1), responses=2).tolist() == [-1.5, -2.5]
    assert parts(cache) == []
    cache.flush()
    cache.flush()
    assert content(1) in cache
    assert len(parts(cache)) == 1
    assert len(cache) == 1


@pytest.mark.parametrize("place", range(16))
def test_a_digest_with_one_byte_changed_is_not_known(place, tmp_path):
    row = bytes(16)  # zeros at the end count like any other byte
    changed = row[:place] + b"\1" + row[place + 1 :]
    cache = ReferenceCache(tmp_path, KEY)
    cache.add(row, [-1.0])
    assert cache.known([row, changed]).tolist() == [True, False]
    cache.flush()
    assert cache.known([changed, row, changed]).tolist() == [False, True, False]
    with pytest.raises(ReferenceCacheError, match=f"row {changed.hex()} is none of the 1 rows in"):
        cache.get(changed)


def test_an_empty_cache_knows_nothing(tmp_path):
    cache = ReferenceCache(tmp_path / "new" / "folder", KEY)
    assert len(cache) == 0
    assert cache.known([content(0)]).tolist() == [False]
    assert cache.known([]).tolist() == []


@pytest.mark.parametrize("part", ["weights", "processor", "settings"])
def test_a_key_of_which_any_part_differs_finds_nothing(part, tmp_path):
    filled(tmp_path, range(10))
    cache = ReferenceCache(
        tmp_path, CacheKey(**{"weights": "a1", "processor": "b2", "settings": "max_length=512", part: "c"})
    )
    assert len(cache) == 0
    assert not cache.known([content(number) for number in range(10)]).any()


def test_what_a_key_is_made_of_can_be_read(tmp_path):
    texts = {(ReferenceCache(tmp_path, key).folder / "key.json").read_text() for key in (KEY, OTHER)}
    assert sorted(json.loads(text)["settings"] for text in texts) == ["max_length=512", "max_length=513"]


def test_a_folder_of_another_key_is_refused(tmp_path):
    cache = ReferenceCache(tmp_path, KEY)
    ReferenceCache(tmp_path, OTHER).folder.rename(cache.folder.with_name("aside"))
    (cache.folder.with_name("aside") / "key.json").replace(cache.folder / "key.json")
    with pytest.raises(ReferenceCacheError, match="(?s)max_length=513.*and this key is.*max_length=512.*Move") as error:
        ReferenceCache(tmp_path, KEY)
    assert str(cache.folder) in str(error.value)


def test_a_part_copied_from_another_key_is_not_read(tmp_path):
    other, cache = filled(tmp_path, range(8), OTHER), ReferenceCache(tmp_path, KEY)
    (path,) = parts(other)
    (cache.folder / path.name).write_bytes(path.read_bytes())
    with pytest.warns(UserWarning, match="its checksum is not that of its rows under this key"):
        cache.reload()
    assert len(cache) == 0


def cut(data: bytes) -> bytes:
    return data[:-5]


def flipped(data: bytes) -> bytes:
    return data[:-5] + bytes([data[-5] ^ 1]) + data[-4:]


@pytest.mark.parametrize(
    "damage", [cut, flipped, lambda data: b"", lambda data: b"x" * 100], ids=["cut", "flipped", "empty", "other"]
)
def test_a_damaged_part_is_set_aside_by_name_and_its_rows_are_computed_again(damage, tmp_path):
    hurt = parts(filled(tmp_path, range(8)))[0]
    filled(tmp_path, range(8, 16))
    hurt.write_bytes(damage(hurt.read_bytes()))
    with pytest.warns(UserWarning, match=f"set aside as .*{hurt.stem}.damaged: .*its rows are computed again"):
        cache = ReferenceCache(tmp_path, KEY)
    assert cache.known([content(number) for number in range(16)]).tolist() == [False] * 8 + [True] * 8
    assert hurt.with_suffix(".damaged").exists()
    for number in range(8):
        cache.add(content(number), values(number))
    cache.flush()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_holds(ReferenceCache(tmp_path, KEY), range(16))


def test_a_row_added_twice_is_kept_once_and_all_ranks_agree_on_its_value(tmp_path):
    one, two = ReferenceCache(tmp_path, KEY, rank=0), ReferenceCache(tmp_path, KEY, rank=1)
    for number in range(6):
        one.add(content(number), [-1.0, -2.0])
        two.add(content(number), [-1.0, -2.0 - 1e-12 * (number % 2)])  # packed otherwise, rounded otherwise
    one.add(content(0), [-1.0, -2.0])
    one.flush()
    two.flush()
    two.add(content(3), [-1.0, -2.0])
    for cache in (one, two, ReferenceCache(tmp_path, KEY)):
        cache.reload()
        assert len(cache) == 6
        assert [cache.get(content(number))[1].item() for number in range(6)] == [-2.0, -2.0 - 1e-12] * 3


def test_what_another_rank_writes_is_seen_after_a_reload(tmp_path):
    cache = ReferenceCache(tmp_path, KEY, rank=0)
    filled(tmp_path, range(10), rank=1)
    assert len(cache) == 0
    cache.reload()
    assert_holds(cache, range(10))


def test_mistakes_are_named(tmp_path):
    cache = filled(tmp_path, range(1))
    with pytest.raises(ReferenceCacheError, match="has 2 reference log-probabilities in .* and 3 responses"):
        cache.get(content(0), responses=3)
    with pytest.raises(ReferenceCacheError, match="b'short' has 5 bytes and a row's digest has 16"):
        cache.add(b"short", [-1.0])
    with pytest.raises(
        ReferenceCacheError, match=r"the reference log-probabilities are \[-1.0, nan\]; kept, they would spoil"
    ):
        cache.add(content(1), [-1.0, float("nan")])
    with pytest.raises(ReferenceCacheError, match=r"give one value a response, not a shape of \(0,\)"):
        cache.add(content(1), [])
    assert len(cache) == 1


def test_only_old_temporary_files_of_this_kind_are_removed(tmp_path):
    folder = ReferenceCache(tmp_path, KEY).folder
    dead, living = (folder / f".part-00000-{letter * 32}.tmp" for letter in "ab")
    foreign = [folder / name for name in (".notes.tmp", "part-00000-a.safetensors.tmp", "kept.json")]
    for path in (dead, living, *foreign):
        path.write_text("half")
    for path in (dead, *foreign):
        os.utime(path, (0, 0))
    ReferenceCache(tmp_path, KEY)
    assert [path.exists() for path in (dead, living, *foreign)] == [False, True, True, True, True]


def test_a_failing_disk_loses_nothing_that_was_added(tmp_path, monkeypatch):
    cache = ReferenceCache(tmp_path, KEY)
    cache.add(content(0), values(0))
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda file: (_ for _ in ()).throw(OSError("no space left")))
        with pytest.raises(OSError, match="no space left"):
            cache.flush()
    assert [path.name for path in cache.folder.iterdir()] == ["key.json"]
    cache.flush()
    assert_holds(ReferenceCache(tmp_path, KEY), range(1))


WRITERS = """
import os, random, signal, sys, time
from test_reference_cache import KEY, ReferenceCache, content, many_values, values

def write(folder, rank, rows, values, flush_every):
    cache = ReferenceCache(folder, KEY, rank, flush_every)
    for number in rows:
        cache.add(content(number), values(number))
    cache.flush()

def started(*task):
    if (child := os.fork()) == 0:
        write(*task)
        os._exit(0)
    return child

def written(folder):
    return sum(name.startswith("part-") for _, _, names in os.walk(folder) for name in names)

chance = random.Random(0)
for run in range(5):
    before = written(sys.argv[1])
    child = started(sys.argv[1], 0, range(1000 * run, 10**9), many_values, 1)
    while written(sys.argv[1]) < before + 2:
        time.sleep(0.001)
    time.sleep(0.03 * chance.random())
    os.kill(child, signal.SIGKILL)
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
children = [started(sys.argv[2], rank, range(200 * rank, 200 * rank + 220), values, 4) for rank in (0, 1)]
assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
"""


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Folders that writers left which were killed, and which wrote at once; one process forks them all."""
    folders = [tmp_path_factory.mktemp(name) for name in ("killed", "both")]
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", WRITERS, *map(str, folders)], check=True, env=environment)
    return folders


def opened(folder: Path) -> ReferenceCache:
    """The cache in a folder in which nothing may be damaged."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return ReferenceCache(folder, KEY)


def test_writers_killed_at_any_moment_leave_whole_parts_only(written):
    cache = opened(written[0])
    known = np.flatnonzero(cache.known([content(number) for number in range(20_000)])).tolist()
    assert len(known) == len(cache) >= 10
    for number in known:
        assert torch.equal(cache.get(content(number)), many_values(number))


def test_two_processes_that_write_at_once_lose_nothing(written):
    assert_holds(opened(written[1]), range(420))


def test_parts_of_one_name_never_arise_and_rows_join_in_any_order(tmp_path):
    caches = [filled(tmp_path, range(3 * n, 3 * n + 3)) for n in range(5)]  # one rank, started five times
    assert len(parts(caches[0])) == 5
    rows = [reference_rows.from_bytes(path.read_bytes(), KEY.digest) for path in parts(caches[0])]
    for order in (rows, rows[::-1]):
        joined = reference_rows.joined(order)
        assert sorted(joined.contents.tolist()) == joined.contents.tolist()
        assert [joined.get(content(n)).tolist() for n in range(15)] == [values(n).tolist() for n in range(15)]
