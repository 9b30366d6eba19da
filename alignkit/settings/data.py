"""The section `[data]`: a class a source, with what a source of the user's own adds in its module."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, PlainValidator, SerializeAsAny, TypeAdapter, ValidationError, ValidationInfo
from pydantic_core import InitErrorDetails, PydanticCustomError

from alignkit.errors import StudyError
from alignkit.settings.modules import import_class, is_own, own_code
from alignkit.settings.types import Count, Flag, Index, Positive, Section, Seed

SOURCES = {
    "digits": "alignkit.data.digits:DigitsSource",
    "teacher": "alignkit.data.teacher:TeacherSource",
    "images": "alignkit.data.images:ImagesSource",
}
"""Where a source is read: imported when its samples are needed, so that a study can be read without torch."""


class DataOptions(Section):
    """What every source has: its name in a study. With `shuffle_labels` the targets of the training split are permuted.

    A source of the user's own adds its options in a subclass, with defaults; each may then be a factor.
    """

    name: str
    shuffle_labels: Flag = False


class Digits(DataOptions):
    """scikit-learn's 8x8 digits (1,797 images, 10 classes), which come with alignkit."""

    name: Literal["digits"] = "digits"


class Teacher(DataOptions):
    """Inputs with a known correlation, labelled by a random network: the ground truth is known."""

    name: Literal["teacher"]
    task: Literal["classification", "regression"] = "classification"
    samples: Annotated[int, Field(strict=True, ge=20, le=10_000_000)] = 2000
    inputs: Count = 32
    outputs: Count = 5
    teacher_width: Count = 32
    teacher_depth: Index = 1
    correlation: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    noise: Annotated[float, Field(ge=0.0, allow_inf_nan=False)] = 0.0
    seed: Seed = 0


class Images(DataOptions):
    """Images in a local folder of Parquet files, in the schema of the Hugging Face hub. `validation` counts
    the training images that are held out (0: none); by default, a tenth of them. `colour` says how many channels
    images have, one ("grey") or three ("rgb"); by default, as many as the first training image."""

    name: Literal["images"]
    path: str
    validation: Index | None = None
    train_samples: Count | None = None
    test_samples: Count | None = None
    mean: tuple[Annotated[float, Field(allow_inf_nan=False)], ...] | None = None
    std: tuple[Positive, ...] | None = None
    colour: Literal["grey", "rgb"] | None = None


class UncheckedOptions(DataOptions):
    """The options of a source of the user's own as a study states them, when its module is not imported."""

    model_config = ConfigDict(extra="allow")


_BUILT_IN: TypeAdapter[DataOptions] = TypeAdapter(Annotated[Digits | Teacher | Images, Field(discriminator="name")])


def options_class(name: str) -> type[DataOptions]:
    """The options that a source of the user's own declares.

    Raises
    ------
    StudyError : its module cannot be imported, or declares none.
    """
    source = import_class(name, what=f'"{name}"')
    options = getattr(source, "Options", None)
    if not (isinstance(options, type) and issubclass(options, DataOptions)):
        raise StudyError(
            f'"{name}": expected a subclass of alignkit.data.source.DataSource, whose Options are a subclass of '
            f"alignkit.settings.data.DataOptions; got {source!r}"
        )
    return options


def _checked(raw: Any, info: ValidationInfo) -> DataOptions:
    """The options of a source, in the class that declares them.

    A source of the user's own is imported for that, unless the context of the validation has `own_modules` False.
    """
    name = raw.get("name") if isinstance(raw, Mapping) else None
    if isinstance(raw, DataOptions):
        return raw
    if name is None or not is_own(name):
        return _BUILT_IN.validate_python(raw)
    if not (info.context or {}).get("own_modules", True):
        return UncheckedOptions.model_validate(raw)
    try:
        options = options_class(name)
        with own_code(name, what=f'"{name}"', let_through=(ValidationError,)):
            # the place of an error names the source, as it does in a union of models
            return TypeAdapter(dict[str, options]).validate_python({name: raw})[name]  # type: ignore[valid-type]
    except StudyError as error:
        reason = PydanticCustomError("value_error", "{reason}", {"reason": str(error)})
        raise ValidationError.from_exception_data(
            "data", [InitErrorDetails(type=reason, loc=("name",), input=name)]
        ) from None


DataSection = Annotated[SerializeAsAny[Digits | Teacher | Images | DataOptions], PlainValidator(_checked)]
