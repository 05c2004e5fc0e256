"""`calculator`: arithmetic on numbers. READ_ONLY.

The expression is parsed and its tree walked: numbers, + - * / // % **, parentheses and a few functions, nothing else.
Sizes are bounded before anything is computed, so that no expression takes long.
"""

import ast
import math
import operator
from collections.abc import Callable, Mapping
from typing import Any

from minion_gateway.tools.domain import Invocation, ToolFailedError

_MAXIMUM_CHARACTERS = 500
_MAXIMUM_NODES = 200
_MAXIMUM_BITS = 4_096
_Number = int | float

_BINARY: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_UNARY: Mapping[type[ast.unaryop], Callable[[Any], Any]] = {ast.UAdd: operator.pos, ast.USub: operator.neg}
_FUNCTIONS: Mapping[str, tuple[int, Callable[..., Any]]] = {
    "sqrt": (1, math.sqrt),
    "abs": (1, abs),
    "floor": (1, math.floor),
    "ceil": (1, math.ceil),
    "round": (1, round),
    "log": (1, math.log),
    "log10": (1, math.log10),
    "exp": (1, math.exp),
    "sin": (1, math.sin),
    "cos": (1, math.cos),
    "tan": (1, math.tan),
}
_CONSTANTS: Mapping[str, float] = {"pi": math.pi, "e": math.e}


class Calculator:
    """Computes `expression`."""

    async def __call__(self, invocation: Invocation) -> Any:
        """Returns `result`; whole numbers beyond 2^53 as text, which keeps their digits."""
        expression = invocation.arguments.get("expression", invocation.arguments.get("input"))
        if not isinstance(expression, str) or not expression.strip():
            raise ToolFailedError("Give an `expression`, as in (2 + 3) * 4.")
        result = compute(expression)
        exact = isinstance(result, int) and abs(result) > 2**53
        return {"result": str(result) if exact else result}


def compute(expression: str) -> _Number:
    """Returns the value of an arithmetic expression. Raises ToolFailedError, which says what is wrong with it."""
    if len(expression) > _MAXIMUM_CHARACTERS:
        raise ToolFailedError(f"The expression has more than {_MAXIMUM_CHARACTERS} characters.")
    try:
        tree = ast.parse(expression.strip(), mode="eval")
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        raise ToolFailedError("This is no arithmetic expression.") from None
    if sum(1 for _ in ast.walk(tree)) > _MAXIMUM_NODES:
        raise ToolFailedError("The expression has too many parts.")
    try:
        result = _value(tree.body)
    except ZeroDivisionError:
        raise ToolFailedError("Division by zero.") from None
    except (OverflowError, ValueError):
        raise ToolFailedError("The result is no number, or too large.") from None
    if isinstance(result, float) and not math.isfinite(result):
        raise ToolFailedError("The result is no number, or too large.")
    return result


def _value(node: ast.expr) -> _Number:
    match node:
        case ast.Constant(value=bool()):
            raise ToolFailedError("Numbers alone can be computed with.")
        case ast.Constant(value=int() | float() as number):
            return _bounded(number)
        case ast.Name(id=name) if name in _CONSTANTS:
            return _CONSTANTS[name]
        case ast.UnaryOp(op=sign, operand=operand) if type(sign) in _UNARY:
            return _bounded(_UNARY[type(sign)](_value(operand)))
        case ast.BinOp(left=left, op=ast.Pow(), right=right):
            return _power(_value(left), _value(right))
        case ast.BinOp(left=left, op=sign, right=right) if type(sign) in _BINARY:
            return _bounded(_BINARY[type(sign)](_value(left), _value(right)))
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]) if name in _FUNCTIONS:
            count, function = _FUNCTIONS[name]
            if len(arguments) != count:
                raise ToolFailedError(f"{name} takes {count} number.")
            return _bounded(function(*(_value(argument) for argument in arguments)))
        case _:
            raise ToolFailedError("Only numbers, + - * / // % **, parentheses and simple functions can be used.")


def _power(base: _Number, exponent: _Number) -> _Number:
    # Bounded before it is computed: the digits of a power grow with the exponent.
    if isinstance(base, int) and isinstance(exponent, int) and exponent > 0:
        if base.bit_length() * exponent > _MAXIMUM_BITS:
            raise ToolFailedError("The power is too large.")
        return _bounded(base**exponent)
    result = float(base) ** float(exponent) if base else base**exponent
    if isinstance(result, complex):
        raise ToolFailedError("The result is no real number.")
    return _bounded(result)


def _bounded(number: Any) -> _Number:
    if isinstance(number, int) and number.bit_length() > _MAXIMUM_BITS:
        raise ToolFailedError("The numbers grow too large.")
    assert isinstance(number, int | float)
    return number
