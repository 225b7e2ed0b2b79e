"""Simulated worlds: bimanual assembly and cooperative pushing. Importing it registers the environments."""

import importlib.util

if importlib.util.find_spec("gymnasium"):
    from gymnasium.envs.registration import register, registry

    _ASSEMBLY = "horseshoe.sim.assembly.env"
    for _name, _blueprint in (("UShape", "u_shape"), ("Connect", "connect")):
        if f"horseshoe/{_name}-v0" not in registry:
            register(
                f"horseshoe/{_name}-v0",
                entry_point=f"{_ASSEMBLY}:AssemblyEnv",
                vector_entry_point=f"{_ASSEMBLY}:make_vector",
                kwargs={"blueprint": _blueprint},
            )
    if "horseshoe/CoopPush-v0" not in registry:
        register(
            "horseshoe/CoopPush-v0",
            entry_point="horseshoe.sim.push.env:CoopPushEnv",
            vector_entry_point="horseshoe.sim.push.env:CoopPushVectorEnv",
        )
