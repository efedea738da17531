"""The compiled module; all else is in setup.cfg. Without a C compiler the package works as well."""

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension(
            "pipecat_bridge._native",
            ["pipecat_bridge/_native.c"],
            extra_compile_args=["-O3"],
            py_limited_api=True,
            optional=True,
        )
    ],
    options={"bdist_wheel": {"py_limited_api": "cp311"}},  # one wheel for 3.11 and all later ones
)
