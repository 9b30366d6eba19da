import io
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from alignkit.data import image_folder as module
from alignkit.data.loading import describe, fingerprint, load, notes
from alignkit.errors import DataError, OutOfMemory
from alignkit.settings.data import Digits, Images


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache of the test's own: no test may write to the user's."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("ALIGNKIT_CACHE", str(folder))
    return folder


def encoded(pixels, form="PNG"):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form)
    return buffer.getvalue()


def write(file, pictures, labels, *, image="img", label="label", label_type=None):
    file.parent.mkdir(parents=True, exist_ok=True)
    structs = [{"bytes": picture, "path": None} for picture in pictures]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    pq.write_table(pa.table({image: pa.array(structs, kind), label: pa.array(labels, label_type)}), file)
    return file


@pytest.fixture
def image_folder(tmp_path):
    """Write a folder of tiny images; a split is given as a number of random ones or as pixels."""
    made = []

    def make(*, train=20, test=10, valid=None, mode="L", seed=0, train_labels=None, test_labels=None):
        root = tmp_path / f"images{len(made)}"
        made.append(root)
        generator = np.random.default_rng(seed)
        shape = (4, 5) if mode == "L" else (4, 5, 3)
        labels = {"train": train_labels, "test": test_labels}
        for split, given in (("train", train), ("test", test), ("validation", valid)):
            if given is None:
                continue
            pictures = generator.integers(0, 256, (given, *shape), np.uint8) if isinstance(given, int) else given
            chosen = labels.get(split) or [row % 3 for row in range(len(pictures))]
            write(root / f"{split}-00000-of-00001.parquet", [encoded(picture) for picture in pictures], chosen)
        return str(root)

    return make


def section(path, **options):
    return Images.model_validate({"name": "images", "path": str(path), "validation": 2, **options})


def rows(inputs):
    return {row.numpy().tobytes() for row in inputs}


def test_image_splits_are_disjoint_and_nested(image_folder):
    path = image_folder(train=60, test=20)
    full = load(section(path, validation=10))
    assert [len(full.train), len(full.validation), len(full.test)] == [50, 10, 20]
    small = load(section(path, validation=10, train_samples=30, test_samples=5, mean=[0], std=[1]))
    raw = load(section(path, validation=10, mean=[0], std=[1]))
    assert torch.equal(small.train.inputs, raw.train.inputs[:30])
    assert torch.equal(small.validation.inputs, raw.validation.inputs)
    assert torch.equal(small.test.targets, raw.test.targets[:5])
    assert not rows(raw.train.inputs) & rows(raw.validation.inputs)
    everything = load(section(path, validation=0, mean=[0], std=[1]))
    assert everything.validation is None
    assert rows(everything.train.inputs) == rows(raw.train.inputs) | rows(raw.validation.inputs)
    assert describe(section(path, validation=0)).validation == 0


def test_images_are_normalised_per_channel(image_folder):
    path = image_folder(train=40, test=20, mode="RGB")
    own = load(section(path, validation=10))
    assert own.shape == (3, 4, 5)
    assert own.train.inputs.double().mean(dim=(0, 2, 3)).abs().max() < 1e-6
    assert (own.train.inputs.double().std(dim=(0, 2, 3), correction=0) - 1).abs().max() < 1e-6
    raw = load(section(path, validation=10, mean=[0, 0, 0], std=[1, 1, 1]))
    assert torch.equal((raw.test.inputs.double() * 255).round().float() / 255, raw.test.inputs)
    mean, std = torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.5, 0.6, 0.7])
    given = load(section(path, validation=10, mean=mean.tolist(), std=std.tolist()))
    expected = (raw.test.inputs - mean[:, None, None]) / std[:, None, None]
    assert (given.test.inputs - expected).abs().max() < 1e-6
    only_sd = load(section(path, validation=10, std=[1, 1, 1]))
    assert only_sd.train.inputs.double().mean(dim=(0, 2, 3)).abs().max() < 1e-6


def test_a_constant_channel_is_centred_alone(image_folder):
    path = image_folder(train=[np.full((4, 5), 77, np.uint8)] * 12, test=4)
    assert (load(section(path, validation=2)).train.inputs == 0).all()


def test_pixels_stay_with_their_labels(image_folder):
    pictures = [np.full((4, 5), 10 * label, np.uint8) for label in (3, 1, 0, 2, 7)]
    path = image_folder(train=pictures, train_labels=[3, 1, 0, 2, 7], test=4)
    train = load(section(path, validation=0, mean=[0], std=[1])).train
    assert (train.inputs[:, 0, 0, 0] * 25.5).round().int().tolist() == train.targets.tolist()


def test_classes_count_every_split_and_may_lack_training_images(image_folder):
    path = image_folder(train=8, test=4, train_labels=[0, 1] * 4, test_labels=[0, 1, 2, 6])
    assert describe(section(path)).outputs == load(section(path)).outputs == 7


def test_a_validation_split_of_the_folder_is_used_whole(image_folder):
    path = image_folder(train=30, test=10, valid=7)
    loaded = load(section(path, validation=5))
    assert [len(loaded.train), len(loaded.validation), len(loaded.test)] == [30, 7, 10]
    assert fingerprint(section(path, validation=5)) == fingerprint(section(path, validation=6))


def test_an_image_fingerprint_follows_content_and_options_but_not_the_place(image_folder, tmp_path):
    here = section(image_folder(train=20, test=10), validation=4)
    copied = tmp_path / "elsewhere" / "data"
    copied.mkdir(parents=True)
    for file in Path(here.path).iterdir():
        (copied / file.name).write_bytes(file.read_bytes())
    there = here.model_copy(update={"path": str(copied.parent)})
    assert fingerprint(here) == fingerprint(there) == load(there).fingerprint
    changes = [{"validation": 5}, {"train_samples": 3}, {"test_samples": 3}, {"std": (0.5,)}, {"shuffle_labels": True}]
    assert len({fingerprint(here.model_copy(update=change)) for change in changes} | {fingerprint(here)}) == 6
    other = section(image_folder(train=20, test=10, seed=1), validation=4)
    assert fingerprint(other) != fingerprint(here)


def test_an_image_description_decodes_one_image(image_folder, monkeypatch):
    chosen = section(image_folder(train=30, test=10), validation=5)
    decoded = []
    original = module.decode
    monkeypatch.setattr("alignkit.data.image_folder.decode", lambda *args: decoded.append(args) or original(*args))
    described = describe(chosen)
    assert len(decoded) == 1
    loaded = load(chosen)
    assert (described.shape, described.outputs) == (loaded.shape, loaded.outputs)
    assert (described.train, described.validation, described.test) == (25, 5, 10)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"validation": 20}, r"data\.validation: expected fewer than the 20 training images .* got 20\. .* 0 for none"),
        ({"train_samples": 19}, r"data\.train_samples: expected at most the 18 images .*validation taken out.* got 19"),
        ({"test_samples": 11}, r"data\.test_samples: expected at most the 10 images of the test split; got 11"),
        ({"mean": (0.1, 0.2, 0.3)}, r"data\.mean: expected one number per channel, 1; got 3: \[0\.1, 0\.2, 0\.3\]"),
        ({"std": (0.1, 0.2)}, r"data\.std: expected one number per channel, 1; got 2"),
    ],
)
def test_options_that_the_images_cannot_meet(image_folder, options, message):
    chosen = section(image_folder(train=20, test=10), **options)
    for function in (describe, load):
        with pytest.raises(DataError, match=message):
            function(chosen)


@pytest.fixture
def decoded(monkeypatch):
    """The places of all images that are decoded from here on."""
    places = []
    original = module.decode

    def counting(encoded, place, *how):
        places.append(place)
        return original(encoded, place, *how)

    monkeypatch.setattr(module, "decode", counting)
    return places


def test_the_second_load_decodes_nothing(image_folder, cache, decoded):
    path = image_folder(train=30, test=10)
    first = load(section(path))
    assert len(decoded) == 42  # the first image three times: it says the size, for the shape and for reading
    assert len(list(cache.iterdir())) == 2
    decoded.clear()
    again = load(section(path, validation=5, mean=[0.5]))
    assert len(decoded) == 2
    assert not torch.equal(first.test.inputs, again.test.inputs)
    assert torch.equal(load(section(path)).train.inputs, first.train.inputs)


@pytest.mark.parametrize("damage", ["truncated", "empty", "changed", "folder"])
def test_a_damaged_cache_is_rebuilt(image_folder, cache, decoded, damage):
    path = image_folder(train=30, test=10)
    first = load(section(path))
    for file in cache.iterdir():
        content = bytearray(file.read_bytes())
        content[7] ^= 1
        if damage == "folder":
            file.unlink()
            file.mkdir()
        else:
            file.write_bytes({"truncated": content[:-5], "empty": b"", "changed": content}[damage])
    decoded.clear()
    assert torch.equal(load(section(path)).train.inputs, first.train.inputs)
    assert len(decoded) == 42
    decoded.clear()
    load(section(path))
    assert len(decoded) == (42 if damage == "folder" else 2)
    assert not [file for file in cache.iterdir() if file.name.startswith(".")]


def test_a_cache_that_cannot_be_written_is_done_without(image_folder, tmp_path, monkeypatch):
    path = image_folder()
    with_cache = load(section(path))
    occupied = tmp_path / "occupied"
    occupied.write_text("a file, not a folder")
    for place in (occupied, occupied / "below"):
        monkeypatch.setenv("ALIGNKIT_CACHE", str(place))
        assert torch.equal(load(section(path)).train.inputs, with_cache.train.inputs)
    assert occupied.read_text() == "a file, not a folder"


def test_the_cache_lies_where_the_user_keeps_caches(image_folder, tmp_path, monkeypatch):
    monkeypatch.delenv("ALIGNKIT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    load(section(image_folder()))
    assert len(list((tmp_path / "xdg" / "alignkit").iterdir())) == 2


def test_changed_files_are_read_anew(image_folder):
    path = image_folder(train=20, test=10)
    before = load(section(path))
    file = next(Path(path).glob("train*"))
    write(file, [encoded(np.full((4, 5), row, np.uint8)) for row in range(21)], [0, 1, 2] * 7)
    after = load(section(path))
    assert (len(before.train), len(after.train)) == (18, 19)
    assert before.fingerprint != after.fingerprint


@pytest.mark.parametrize("names", [("img", "label"), ("image", "labels"), ("picture", "fine_label"), ("x", "digit")])
def test_columns_are_found_by_name_and_type(tmp_path, names):
    pictures = [encoded(np.full((4, 5), row, np.uint8)) for row in range(6)]
    for split in ("train", "test"):
        write(
            tmp_path / f"{split}.parquet", pictures, [0, 1] * 3, image=names[0], label=names[1], label_type=pa.uint8()
        )
    assert len(load(section(tmp_path)).train) == 4


def test_shards_come_in_order_and_empty_ones_are_passed_over(tmp_path):
    pictures = [encoded(np.full((4, 5), row, np.uint8)) for row in range(6)]
    for shard, (start, end) in enumerate([(0, 0), (0, 2), (2, 6)]):
        name = f"train-{shard:05d}-of-00003-0123456789abcdef.parquet"
        write(tmp_path / "data" / name, pictures[start:end], list(range(6))[start:end], label_type=pa.int64())
    write(tmp_path / "data" / "test-00000-of-00001.parquet", pictures, [0] * 6)
    folder = module.open_folder(str(tmp_path))
    assert folder.labels["train"].tolist() == list(range(6)) == folder.pixels("train")[:, 0, 0, 0].tolist()


@pytest.mark.parametrize("form", ["PNG", "JPEG", "BMP"])
@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 3)])
def test_pixels_are_what_pillow_decodes(tmp_path, form, shape):
    pictures = [encoded(picture, form) for picture in np.random.default_rng(0).integers(0, 256, (5, *shape), np.uint8)]
    for split in ("train", "test"):
        write(tmp_path / f"{split}.parquet", pictures, [0, 1, 2, 3, 4])
    found = module.open_folder(str(tmp_path)).pixels("train")
    for picture, pixels in zip(pictures, found, strict=True):
        expected = np.asarray(Image.open(io.BytesIO(picture)))
        assert (pixels == (expected[None] if expected.ndim == 2 else expected.transpose(2, 0, 1))).all()


def test_colours_are_dropped_only_where_that_was_asked_for(tmp_path, cache):
    grey, colour = np.full((4, 5), 9, np.uint8), np.zeros((4, 5, 3), np.uint8)
    colour[..., 0] = 255
    for split in ("train", "test"):
        write(tmp_path / f"{split}.parquet", [encoded(grey), encoded(colour), encoded(grey)], [0, 1, 0])
    for _ in range(2):  # with and without a cache
        refused(
            tmp_path, r'train.parquet, row 1: expected greyscale .* got one with colours\. Set data\.colour = "rgb"'
        )
    red = load(section(tmp_path, validation=0, colour="rgb", mean=[0] * 3, std=[1] * 3)).test.inputs
    assert red.shape == (3, 3, 4, 5) and sorted(red[:, 0, 0, 0].tolist())[2] == 1.0
    dropped = load(section(tmp_path, validation=0, colour="grey", mean=[0], std=[1])).test.inputs
    assert dropped.shape == (3, 1, 4, 5) and 0.29 < dropped.max().item() < 0.31
    refused(tmp_path, "got one with colours")
    chosen = {fingerprint(section(tmp_path, colour=colour)) for colour in ("rgb", "grey", None)}
    assert len(chosen) == 3


def test_all_images_take_the_mode_of_the_first(tmp_path):
    grey, colour = np.full((4, 5), 9, np.uint8), np.full((4, 5, 3), 9, np.uint8)
    for first, second, channels in ((grey, colour, 1), (colour, grey, 3)):
        folder = tmp_path / str(channels)
        for split in ("train", "test"):
            write(folder / f"{split}.parquet", [encoded(first), encoded(second), encoded(first)], [0, 1, 0])
        pixels = module.open_folder(str(folder)).pixels("test")
        assert pixels.shape == (3, channels, 4, 5)
        assert (pixels == 9).all()


# What a user may have got wrong.

PIXELS = [encoded(np.full((4, 5), row, np.uint8)) for row in range(6)]


def refused(path, message, **options):
    with pytest.raises(DataError, match=message):
        load(section(path, **options))


def test_a_missing_folder(tmp_path):
    refused(tmp_path / "none", r"none: no such folder\. Expected a folder with train-\*\.parquet .* --data PATH")


def test_a_file_in_place_of_a_folder(image_folder):
    path = image_folder()
    refused(next(Path(path).iterdir()), rf"got a file\. Give the folder that holds it: {path}$")


def test_folders_without_files_of_a_split(tmp_path):
    refused(tmp_path, r"no Parquet file .* got an empty folder\. Copy")
    write(tmp_path / "plain_text" / "train-00000-of-00001.parquet", PIXELS, [0, 1] * 3)
    refused(tmp_path, r"plain_text has such files\. Give that folder")
    write(tmp_path / "other" / "numbers.parquet", PIXELS, [0, 1] * 3)
    refused(tmp_path / "other", r"got numbers\.parquet\. Rename the files, or give another folder")


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_missing_split(image_folder, split):
    path = Path(image_folder(valid=3))
    next(path.glob(f"{split}*")).unlink()
    refused(path, rf"no {split} split\. .* got (test|train)-\*, validation-\*\. Add {split}-\*\.parquet")


def test_a_missing_shard(tmp_path):
    write(tmp_path / "test.parquet", PIXELS, [0, 1] * 3)
    for shard in (0, 2):
        write(tmp_path / f"train-{shard:05d}-of-00003.parquet", PIXELS, [0, 1] * 3)
    refused(tmp_path, r"each of the 3 files train-\*-of-00003\.parquet once; got 2 files, without number 00001")
    write(tmp_path / "train-00001-of-00003.parquet", PIXELS, [0, 1] * 3)
    write(tmp_path / "train-00001-of-00003-abc.parquet", PIXELS, [0, 1] * 3)
    refused(tmp_path, r"got 4 files, some numbers twice")


@pytest.mark.parametrize("kept", [0, 3, 200, -9])
def test_a_half_copied_file(image_folder, kept):
    path = image_folder()
    file = next(Path(path).glob("train*"))
    content = file.read_bytes()[:kept]
    file.write_bytes(content)
    message = rf"train-.*: expected a whole Parquet file; its {len(content)} bytes are damaged .* Copy it again"
    for function in (describe, load):
        with pytest.raises(DataError, match=message):
            function(section(path))


def test_damage_inside_a_file(image_folder):
    path = image_folder(train=200)
    file = next(Path(path).glob("train*"))
    content = bytearray(file.read_bytes())
    content[100:-3000] = bytes(len(content) - 3100)
    file.write_bytes(content)
    refused(path, r"train-.*Copy (it|the file) again from its source")


def test_a_git_lfs_pointer(image_folder):
    path = image_folder()
    file = next(Path(path).glob("test*"))
    file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 3123695\n")
    refused(path, r"test-.*: expected a Parquet file; got a Git-LFS pointer to one\. Run `git lfs pull`")


def test_a_broken_link(image_folder):
    path = image_folder()
    file = next(Path(path).glob("test*"))
    file.unlink()
    file.symlink_to("nowhere.parquet")
    refused(path, r"test-.*: a link to a file that is missing.* Copy the files themselves")
    with pytest.raises(DataError, match="a link to a file that is missing"):
        fingerprint(section(path))


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            {"label": [0, 1]},
            r"one column of images, a struct of bytes and path.*; got none among label \(int64\)\. Write",
        ),
        (
            {"img": "images", "name": ["a", "b"]},
            r"one column of integer labels, called label; got none among img .*name",
        ),
        ({"img": "images", "label": [0.0, 1.0]}, r"expected integers in the column label; got double\. Write"),
        ({"img": "images", "label": [0, 1], "labels": [0, 1]}, r"integer labels, called label; got 2 candidates among"),
        (
            {"img": "images", "age": [0, 1], "kind": [0, 1]},
            r"got 2 candidates among .*age \(int64\), kind .* leave the others",
        ),
        (
            {"left": "images", "right": "images", "label": [0, 1]},
            r"one column of images, .* got 2 candidates among left",
        ),
        ({"img": ["a", "b"], "label": [0, 1]}, r"got none among img \(string\), label"),
    ],
)
def test_columns_of_another_schema(image_folder, columns, message):
    path = image_folder()
    structs = [{"bytes": picture, "path": "x.png"} for picture in PIXELS[:2]]
    table = pa.table({name: structs if values == "images" else values for name, values in columns.items()})
    pq.write_table(table, next(Path(path).glob("train*")))
    refused(path, message)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 1, None, 1, 0, 1], r"train\.parquet, row 2: expected an integer label; got none\. Label the row"),
        ([0, 1, 0, 1, -1, 1], r"train\.parquet, row 4: expected a label of 0 or more; got -1\. .*unlabelled"),
        ([0] * 6, r"at least two classes; got label 0 in every row of the train split\. Check the label column"),
        ([0, 1, 2, 3, 4, 10**6], r"class labels that count from 0; got one as large as 1000000.* not identifiers"),
        ([5] * 6, r"at least two classes; got label 5 in every row of the train split\. Check the label column"),
        (
            [0, 1, 2**64 - 1, 0, 1, 2],
            r"train\.parquet, row 2: expected a label that counts classes from 0; got 18446744073709551615\. ",
        ),
    ],
)
def test_labels_that_are_no_classes(tmp_path, labels, message):
    kind = pa.uint64() if max(label or 0 for label in labels) > 2**63 else None
    write(tmp_path / "train.parquet", PIXELS, labels, label_type=kind)
    write(tmp_path / "test.parquet", PIXELS, [0] * 6)
    refused(tmp_path, message)


@pytest.mark.parametrize(
    ("train", "test", "words"),
    [
        ([0, 1, 2] * 2, [0, 1, 2] * 2, []),
        ([1, 2, 3] * 2, [1, 2, 3] * 2, ["no image has label 0,", "Labels that count from 1 leave class 0 empty"]),
        ([0, 5] * 3, [0, 5] * 3, ["no image has label 1, 2, 3, 4, and networks have an output for each"]),
        ([0, 1] * 3, [0, 1, 2] * 2, ["class 2 has images (2 of test), none of them to train on"]),
    ],
)
def test_labels_that_are_odd_are_said(tmp_path, train, test, words):
    write(tmp_path / "train.parquet", PIXELS, train)
    write(tmp_path / "test.parquet", PIXELS, test)
    found = notes(section(tmp_path))
    assert len(found) == bool(words) and all(word in found[0] for word in words)
    assert notes(Digits()) == ()


def test_a_second_column_of_labels_is_said(tmp_path):
    structs = [{"bytes": picture, "path": "x.png"} for picture in PIXELS]
    for split in ("train", "test"):
        table = pa.table({"img": structs, "fine_label": [0, 1, 2] * 2, "coarse_label": [0, 1] * 3, "row": range(6)})
        pq.write_table(table, tmp_path / f"{split}.parquet")
    (note,) = notes(section(tmp_path))
    assert note.endswith("labels are taken from the column fine_label, none from coarse_label")


@pytest.mark.parametrize("kind", ["a folder", "a named pipe", "a device"])
def test_what_is_no_file_is_not_read(image_folder, kind):
    path = image_folder()
    file = next(Path(path).glob("test*"))
    file.unlink()
    if kind == "a folder":
        file.mkdir()
    elif kind == "a named pipe":
        os.mkfifo(file)
    else:
        file.symlink_to("/dev/zero")
    for function in (describe, load, fingerprint):
        with pytest.raises(DataError, match=rf"test-.*: expected a Parquet file; got {kind} of that name"):
            function(section(path))


def test_paths_of_nobody_and_of_nothing():
    refused("~nosuchuser/x", r"data\.path: expected a path; got ~nosuchuser/x, and here is no such user")
    refused("", r"data\.path: expected a path; got an empty text")


@pytest.mark.parametrize("error", [MemoryError, pa.ArrowMemoryError])
def test_memory_that_runs_out_is_no_damage(image_folder, monkeypatch, error):
    path = image_folder()

    def exhausted(*arguments, **options):
        raise error("malloc of size 123 failed")

    monkeypatch.setattr(pq.ParquetFile, "read", exhausted)
    monkeypatch.setattr("alignkit.memory.free_bytes", lambda: 1000)
    with pytest.raises(OutOfMemory, match=r"t.*parquet: reading it: out of memory; it takes about .* keep them"):
        load(section(path))
    # a small file that asks for more than a thousand times its size is damaged, whatever it says
    monkeypatch.setattr("alignkit.memory.free_bytes", lambda: 2**40)
    refused(path, "damaged or half-copied")


def test_an_image_that_takes_all_memory_is_not_damaged(monkeypatch):
    monkeypatch.setattr(Image.Image, "convert", lambda image, mode: (_ for _ in ()).throw(MemoryError))
    with pytest.raises(OutOfMemory, match="row 3: out of memory"):
        module.decode(PIXELS[0], "row 3", "L")


@pytest.mark.parametrize("split", ["train", "test", "valid"])
def test_an_empty_split(image_folder, split):
    path = Path(image_folder())
    (file,) = path.glob(f"{split}*") if split != "valid" else [path / "valid.parquet"]
    write(file, [], [], label_type=pa.int64())
    refused(path, rf"{split}.*: expected at least one row in the {split}(ation)? split; got none\. Copy the files")


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (b"not an image", r"row 3: expected an encoded image \(PNG, JPEG, …\); its 12 bytes cannot be decoded"),
        (PIXELS[0][:-30], r"row 3: expected an encoded image .* cannot be decoded .*Copy the file again"),
        (None, r"row 3: expected an encoded image; got none .*Embed the images' bytes"),
        (
            encoded(np.zeros((6, 7), np.uint8)),
            r"row 3: expected every image .* 4x5 \(height x width\); got 6x7\. Resize",
        ),
    ],
)
def test_images_that_cannot_be_used(tmp_path, cache, picture, message):
    write(tmp_path / "train.parquet", PIXELS, [0, 1] * 3)
    write(tmp_path / "test.parquet", [*PIXELS[:3], picture, *PIXELS[4:]], [0, 1] * 3)
    refused(tmp_path, rf"test\.parquet, {message}")
    assert not [file for file in cache.iterdir() if file.name.startswith(".")]


@pytest.mark.slow
def test_real_cifar10():
    root = Path(os.environ.get("ALIGNKIT_CIFAR10", Path(__file__).parents[3] / "shared" / "data" / "cifar10"))
    if not root.is_dir():
        pytest.skip(f"CIFAR-10 is not at {root}; say where with ALIGNKIT_CIFAR10")
    loaded = load(Images(name="images", path=str(root), validation=0, mean=(0, 0, 0), std=(1, 1, 1)))
    assert (loaded.shape, loaded.outputs, loaded.validation) == ((3, 32, 32), 10, None)
    assert torch.bincount(loaded.train.targets).tolist() == [5000] * 10
    assert torch.bincount(loaded.test.targets).tolist() == [1000] * 10
    means = loaded.train.inputs.mean(dim=(0, 2, 3), dtype=torch.float64)
    assert (means - torch.tensor([0.4914, 0.4822, 0.4465], dtype=torch.float64)).abs().max() < 0.005


def test_images_of_more_than_eight_bits_are_refused():
    deep = encoded(np.arange(64, dtype=np.uint16).reshape(8, 8) * 1000)
    with pytest.raises(DataError, match=r"row 3: .*more than 8 bits a channel"):
        module.decode(deep, "row 3", None)
