import json
from pytest_twisted import ensureDeferred
from tests.e2e.harness import line, sleep
from tests.doubles import protobuf
from uuid import UUID
U="b5f6a3c8-3f0e-4f3a-9d5e-2b8f0a1c4d7e"
@ensureDeferred
async def test_x():
    async with line(echo=True) as it:
        print(await it.api("PUT", f"/v1/calls/{U}", json={"metadata":{"caller":"+4930123456"},"tts_type":"cartesia"}))
        print(await it.api("GET", f"/v1/calls/{U}"))
        phone, bot = await it.talk(call_id=UUID(U))
        phone.start_audio()
        await bot.until(lambda: len(bot.audio) > 20)
        phone.dtmf("5")
        bot.send(protobuf.encode_rtvi("user-transcription", {"text":"When do you open?","user_id":"","timestamp":"2026-01-01T00:00:00Z","final":True}))
        await sleep(.3)
        print(await it.api("POST", f"/v1/calls/{U}/messages", json={"text":"Say goodbye."}))
        print(await it.api("GET", f"/v1/calls"))
        print(await it.api("GET", "/readyz"))
        phone.hangup()
        await it.ended(phone)
        print(json.dumps((await it.api("GET", f"/v1/calls/{U}"))[1], indent=2))
        print(json.dumps((await it.api("GET", f"/v1/calls"))[1], indent=2))
