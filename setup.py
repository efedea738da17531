"""The compiled module; all else is in setup.cfg. Without a C compiler the package works as well."""

import sysconfig

from setuptools import Extension, setup

# One wheel for 3.11 and all later ones. A Python without the GIL has no such interface yet.
STABLE = not sysconfig.get_config_var("Py_GIL_DISABLED")

setup(
    ext_modules=[
        Extension(
            "pipecat_bridge._native",
            ["pipecat_bridge/_native.c"],
            extra_compile_args=["-O3"],
            py_limited_api=STABLE,
            optional=True,
        )
    ],
    options={"bdist_wheel": {"py_limited_api": "cp311"}} if STABLE else {},
)
