"""How kernels are made machine code of: once each, with all that they call.

Numba makes machine code of every function that another one calls, and then once more of both together; the body of a
``prange`` it optimises and assembles four times. Of a kernel that is made of many small functions, most of the time
went into code that nobody ran. Here functions that kernels call are typed and translated, and then wait; so do
the wrappers that Numba puts around the body of a loop. Only the kernel is optimised and assembled.
"""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType
from typing import Any

import numba
from numba.core import codegen, compiler, typed_passes
from numba.core.compiler_machinery import register_pass

_AROUND_LOOPS = ("__numba_parfor_gufunc", "<numba.np.ufunc.wrappers._GufuncWrapper", "parallelgufuncwrapper")
"""How the libraries begin that Numba makes of the body of a ``prange``."""


class _Part(codegen.JITCodeLibrary):  # type: ignore[misc]
    """Code that is only ever linked into that of a kernel."""

    def _optimize_final_module(self) -> None:
        """Leave that to the kernel."""

    def _finalize_final_module(self) -> None:
        self._finalize_dynamic_globals()
        self._verify_declare_only_symbols()
        self._finalized = True

    def get_pointer_to_function(self, name: str) -> int:
        """Return 0: there is no machine code."""
        self._ensure_finalized()
        return 0

    @property
    def codegen(self) -> Any:
        """What made the code; it does not look for the machine code's variables."""
        return _WithoutEnvironment(self._codegen)


class _WithoutEnvironment:
    def __init__(self, made_by: Any) -> None:
        self._made_by = made_by

    def __getattr__(self, name: str) -> Any:
        return getattr(self._made_by, name)

    def set_env(self, name: str, environment: Any) -> None:
        """Do nothing. Kernels from disk have no environments of parts either; only Python objects need them."""


class _Entry:
    """What represents a part where Numba wants something that can be called: the Python that it is written in."""

    def __init__(self, function: FunctionType) -> None:
        self._function = function

    def __call__(self, *arguments: Any) -> Any:
        return self._function(*arguments)


@register_pass(mutates_CFG=True, analysis_only=False)
class _Translation(typed_passes.NativeLowering):  # type: ignore[misc]
    """Translate a part, and let others find it."""

    _name = "wkvnp_part"

    def run_pass(self, state: Any) -> bool:
        context, flags = state.targetctx, state.flags
        library = state.library = _Part(context.codegen(), state.func_id.func_qualname)
        library.enable_object_caching()
        flags.no_compile = True
        super().run_pass(state)
        entry, result = _Entry(state.func_id.func), state["cr"]
        context.insert_user_function(entry, result.fndesc, [library])
        state["cr"] = result._replace(cfunc=entry)
        return True


@register_pass(mutates_CFG=True, analysis_only=False)
class _TranslationOfLoops(typed_passes.NativeParforLowering):  # type: ignore[misc]
    """Translate a kernel, with what Numba makes of its ``prange`` as parts. Numba holds its lock meanwhile."""

    _name = "wkvnp_kernel"

    def run_pass(self, state: Any) -> bool:
        made_by = state.targetctx.codegen()
        ordinary = made_by.create_library
        state.library = ordinary(state.func_id.func_qualname)
        state.library.enable_object_caching()
        made_by.create_library = lambda name: _Part(made_by, name) if name.startswith(_AROUND_LOOPS) else ordinary(name)
        try:
            return bool(super().run_pass(state))
        finally:
            del made_by.create_library


class _Compiler(compiler.CompilerBase):  # type: ignore[misc]
    """Numba's passes, but for one."""

    ours: Any
    theirs: Any

    def define_pipelines(self) -> list[Any]:
        manager = compiler.DefaultPassBuilder.define_nopython_pipeline(self.state, self.ours._name)
        passes = [(self.ours if each is self.theirs else each, why) for each, why in manager.passes]
        assert passes != manager.passes
        manager.passes = passes
        return [manager]


class _CompilerOfParts(_Compiler):
    ours, theirs = _Translation, typed_passes.NativeLowering


class _CompilerOfLoops(_Compiler):
    ours, theirs = _TranslationOfLoops, typed_passes.NativeParforLowering


def kernel(function: Callable[..., Any], options: dict[str, Any]) -> Any:
    """Return the dispatcher of a function that Python calls."""
    if options["parallel"]:
        options = options | {"pipeline_class": _CompilerOfLoops}
    return numba.njit(**options)(function)


def part(function: Callable[..., Any], options: dict[str, Any]) -> Any:
    """Return the dispatcher of a function that kernels call; when Python calls it, it stays Python."""
    if numba.config.DISABLE_JIT:
        return function
    options = options | {"pipeline_class": _CompilerOfParts, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
    made = numba.njit(**options)(function)

    def add_overload(result: Any) -> None:
        made.overloads[tuple(result.signature.args)] = result

    made.add_overload = add_overload
    return made
