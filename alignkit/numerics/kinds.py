"""Kinds of tensors for annotations: `Float[Tensor, "E N d"]` is one of floats, [E, N, d].

To Python and to type checkers the shape is a remark, which costs nothing. `pytest --shapes` puts jaxtyping's names in
the place of these before anything else is loaded, and then every call is checked: an axis has one length in all of its
arguments and in what it returns.
"""

from typing import Annotated as Bool
from typing import Annotated as Float
from typing import Annotated as Int

__all__ = ["Bool", "Float", "Int"]
