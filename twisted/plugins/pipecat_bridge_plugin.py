from twisted.application.service import ServiceMaker

pipecat_bridge = ServiceMaker(
    "pipecat-bridge",
    "pipecat_bridge.service",
    "Puts Pipecat voice bots on Asterisk phone lines",
    "pipecat-bridge",
)
