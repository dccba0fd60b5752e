"""LangGraph's prebuilt agent on goals of `bench agents`.

Reads a JSON line from standard input: base_url of the simulator, model, system, at_once, tools, items, warm_up.
Pursues warm_up, prints `ready`, and waits for another line. Then prints a JSON line for each item (id, wall_s, answer or error), then one with the CPU seconds since.
It is what LangGraph's documentation shows: create_agent with its defaults, tools as coroutines, one shared client.
"""

import asyncio
import json
import sys
import time

import httpx
from langchain.agents import create_agent
from langchain_core.tools import StructuredTool
from langchain_openai import ChatOpenAI

# Steps of the graph: a turn is two, and the longest goal takes 13 turns.
RECURSION_LIMIT = 100
TIMEOUT_S = 120


def tool(client, base_url, declared):
    url = f"{base_url}/tools/{declared['name']}"

    async def call(**arguments):
        response = await client.post(url, json=arguments)
        response.raise_for_status()
        return response.text

    return StructuredTool.from_function(
        coroutine=call,
        name=declared["name"],
        description=declared["description"],
        args_schema=declared["parameters"],
    )


async def answer(agent, item):
    state = await agent.ainvoke(
        {"messages": [{"role": "user", "content": item["goal"]}]},
        {"recursion_limit": RECURSION_LIMIT},
    )
    return state["messages"][-1].text


async def pursue(agent, item, slots):
    async with slots:
        start = time.perf_counter()
        try:
            ended = {"answer": await answer(agent, item)}
        except Exception as error:
            ended = {"error": f"{type(error).__name__}: {error}"}
        wall = time.perf_counter() - start
    print(json.dumps({"id": item["id"], "wall_s": wall, **ended}), flush=True)


async def main():
    work = json.loads(sys.stdin.readline())
    limits = httpx.Limits(max_connections=1000, max_keepalive_connections=1000)
    async with httpx.AsyncClient(limits=limits, timeout=TIMEOUT_S) as client:
        model = ChatOpenAI(
            model=work["model"],
            base_url=work["base_url"] + "/v1",
            api_key="simulated",
            timeout=TIMEOUT_S,
            max_retries=0,
        )
        tools = [tool(client, work["base_url"], declared) for declared in work["tools"]]
        agent = create_agent(model=model, tools=tools, system_prompt=work["system"])
        await answer(agent, work["warm_up"])
        print("ready", flush=True)
        sys.stdin.readline()
        used = time.process_time()
        slots = asyncio.Semaphore(work["at_once"])
        await asyncio.gather(*(pursue(agent, item, slots) for item in work["items"]))
    print(json.dumps({"cpu_s": time.process_time() - used}), flush=True)


asyncio.run(main())
