"""Renders conversations by the checkpoints' own chat templates with jinja2, as transformers does, for
tests/unit/text/chat_cases.json.

usage: python tools/chat_cases.py TEMPLATES_JSON [OUT]
TEMPLATES_JSON is {"name": {"template": "...", "source": "where it was read"}}; names are those of volley's chat formats.
"""

import hashlib
import json
import pathlib
import sys

from jinja2.exceptions import TemplateError
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

TOKENS = {"llama2": ("<s>", "</s>"), "llama3": ("<|begin_of_text|>", "<|eot_id|>"), "llama3.1": ("<|begin_of_text|>", "<|eot_id|>")}
S, U, A = (lambda c: {"role": "system", "content": c}), (lambda c: {"role": "user", "content": c}), (lambda c: {"role": "assistant", "content": c})
CHATS = [
    [U("Hello")],
    [S("Be brief."), U("Hello")],
    [U("Hello"), A("Hi there"), U("Who are you?")],
    [S("  Be brief.\n"), U("\n Hello \n"), A("  Hi there  \n"), U(" Who <|im_end|> </s> are you? \u00a0")],
    [U("Hello"), A("Hi")],
    [S("Only this.")],
    [U(""), A(""), U("")],
    [U("a"), U("b")],
    [A("first"), U("b")],
    [U("a"), S("late"), A("b")],
    [U("2+2?"), A("<think>\nsum\n</think>\n\n4"), U("and 3+3?"), A("<think>\n\nsum again\n\n</think>\n\n\n6")],
    [U("2+2?"), A("<think>\nsum\n</think>\n\n4"), A("\nfive"), U("x")],
    [U("q"), A("no thought"), U("<tool_response>1</tool_response>"), A("<think>deep</think>t</think>rest")],
    [U("q"), A("<think>a</think>one"), A("two"), A("\n\nthree")],
    [S("x"), S("y"), U("z")],
    [U("q"), {"role": "wizard", "content": "w"}],
]


def main():
    templates = json.loads(pathlib.Path(sys.argv[1]).read_text())
    out = pathlib.Path(sys.argv[2] if len(sys.argv) > 2 else pathlib.Path(__file__).parent.parent / "tests/unit/text/chat_cases.json")
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])

    def refuse(message):
        raise TemplateError(message)

    environment.globals["raise_exception"] = refuse
    made = {}
    for name, entry in templates.items():
        template = environment.from_string(entry["template"])
        bos, eos = TOKENS.get(name, ("<s>", "</s>") if name.startswith("mistral") else ("", "<|im_end|>"))
        cases = []
        for chat in CHATS:
            for variables in ({"add_generation_prompt": True}, {"add_generation_prompt": False}, {"add_generation_prompt": True, "enable_thinking": False}):
                if "enable_thinking" in variables and name != "qwen3":
                    continue
                case = {"messages": chat, **variables}
                try:
                    case["text"] = template.render(messages=chat, bos_token=bos, eos_token=eos, **variables)
                except TemplateError as error:
                    case["error"] = str(error)
                cases.append(case)
        made[name] = {"source": entry["source"], "sha256": hashlib.sha256(entry["template"].encode()).hexdigest(), "cases": cases}
    out.write_text(json.dumps(made, ensure_ascii=False, indent=0) + "\n")


if __name__ == "__main__":
    main()
