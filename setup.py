from setuptools import find_packages, setup

setup(name="horseshoe", version="0.1.0", packages=find_packages(include=["horseshoe", "horseshoe.*"]), install_requires=["numpy", "scipy", "pyyaml", "click"])
