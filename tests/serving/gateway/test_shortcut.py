import asyncio

from serving.gateway import shortcut

PATH = "/bench/v1/predict"


def app(name, asked):
    async def answer(scope, receive, send):
        asked.append((name, scope["path"]))

    return answer


def ask(entry, method="POST", path=PATH, kind="http"):
    asyncio.run(entry({"type": kind, "method": method, "path": path}, None, None))


def test_predictions_go_straight_to_their_answerer_and_all_else_goes_on():
    asked = []
    (made,) = shortcut.middlewares()
    entry = made.cls(app("ray", asked), *made.args, **made.kwargs)
    ask(entry)
    shortcut.answer(PATH, app("gateway", asked))
    try:
        for request in ({}, {"method": "GET"}, {"path": f"{PATH}/"}, {"path": "/-/healthz"}, {"kind": "websocket"}):
            ask(entry, **request)
    finally:
        shortcut.forget(PATH)
    ask(entry)
    assert [name for name, _ in asked] == ["ray", "gateway", "ray", "ray", "ray", "ray", "ray"]
