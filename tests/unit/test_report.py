"""The report: complete, self-contained, safe against hostile names, equal to its JSON."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from torch import nn

from headstart.core.plan import Plan
from headstart.core.settings import FineTune, Pretrained, Source
from headstart.core.types import Audit, EncoderSpec, Features, Finding, InputContract, Score
from headstart.encoders.tiny import open_tiny_cnn, open_tiny_transformer
from headstart.evaluation import Evaluation, evaluate, paired_gain, softmax
from headstart.heads import LinearHead
from headstart.model import Model
from headstart.report import card, charts, render, to_json
from headstart.report.attention import look
from headstart.report.page import group_rows
from headstart.report.words import cautions, compared, count, duration, verdict
from headstart.result import Baseline, Candidate, Cost, Predicted, Result
from headstart.tasks.classification import Classification

HOSTILE = (
    '<script>alert("x")</script>',
    "\"><img src=x onerror='go()'>",
    "a|b`c`\n---\n# *loud* & <b>bold</b>",
)


@pytest.fixture(scope="module")
def model() -> Any:
    torch.manual_seed(0)
    encoder = open_tiny_cnn(Pretrained(name="tiny-cnn"))
    head = LinearHead(encoder.spec.width["pooled"], 3)
    nn.init.normal_(head.weight)
    return _model(encoder, head)


def _model(encoder: Any, head: Any) -> Model:
    """Return a model of these parts."""
    return Model(encoder, Classification(("cat", "dog", "eel")), head, Pretrained(name="tiny-cnn"))


def _result(model: Any, *, labels: tuple[str, ...] = ("cat", "dog", "eel"), n: int = 60) -> Result:
    """Return a whole result with predictions that are right more often than the baseline's."""
    draws = np.random.default_rng(0)
    targets = draws.integers(0, len(labels), n)
    logits = draws.normal(size=(2, n, len(labels)))
    logits[0, np.arange(n), targets] += 2.5
    ours, scratch = softmax(logits[0]), softmax(logits[1])
    hits = [(given.argmax(1) == targets).astype(float) for given in (ours, scratch)]
    names = [f"{labels[target]}/{index}.png" for index, target in enumerate(targets)]
    domains = ["north" if index % 2 else HOSTILE[0] for index in range(n)]
    plan = Plan(data=Source(uri="/home/someone/secret/pets"), method=FineTune(), labels=labels)
    return Result(
        plan=plan.model_copy(update={"start": plan}),
        folder=Path("/home/someone/secret/runs/pets"),
        evaluation=evaluate(ours, targets, labels=labels, domains=domains, resamples=100),
        baseline=Baseline(
            "the same network from scratch",
            evaluate(scratch, targets, labels=labels, resamples=100),
            12.5,
            paired_gain(hits[0] - hits[1], name="accuracy_difference", resamples=100),
        ),
        audit=Audit(
            70, n, (Finding("leak-exact", "error", f"{HOSTILE[1]} leaks", "removed", tuple(names[:30])),)
        ),
        receipt=model.encoder.receipt,
        race=tuple(
            Candidate(f"head {index}", 0.9 - index / 50, 0.01, 0.4, 0.02, index == 1) for index in range(12)
        ),
        history=tuple(
            {
                "epoch": float(e),
                "train_loss": 1 / e,
                "validation_loss": 1.2 / e,
                "validation_accuracy": 1 - 0.5 / e,
            }
            for e in range(1, 6)
        ),
        cost=Cost(14.2, 20.1, 512.0, 50, 10, {"encode": 8.0, HOSTILE[2]: 1.0}),
        predictions=tuple(
            Predicted(name, labels[target], labels[row.argmax()], float(row.max()), Path("/home/someone/x"))
            for name, target, row in zip(names, targets, ours, strict=True)
        ),
        notes=("the head was chosen by its log-loss",),
    )


def _inputs(result: Result) -> dict[str, Any]:
    """Return a noise picture for every test item."""
    draws = np.random.default_rng(1)
    return {item.id: draws.integers(0, 255, (40, 40, 3), dtype=np.uint8) for item in result.predictions}


class _Reader(HTMLParser):
    """Collects tags, attributes and text, and checks that tags close in order."""

    VOID = frozenset({"meta", "img", "br"})

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def _read(path: Path) -> _Reader:
    reader = _Reader()
    reader.feed(path.read_text())
    reader.close()
    assert reader.open == []
    return reader


def test_page_says_everything(model: Any, tmp_path: Path) -> None:
    result = _result(model)
    page = _read(render(result, model, _inputs(result), path=tmp_path / "report.html"))
    words = " ".join(page.text.split())
    accuracy = result.evaluation.score("accuracy")
    for expected in (
        f"{100 * accuracy.value:.1f}%", "60 test pictures", "The same network from scratch", "prove a gain",
        "leaks", "removed", "30 items", "and 10 more", "100.0% of the network's numbers", "chosen", "4 more",
        "Balanced accuracy", "Calibration error", "Sure, and wrong", "Least sure", "Sure, and right", "512 MB",
        "From the store",
        "The head was chosen by its log-loss.", "headstart predict pets", "Apache-2.0", "Loss", "kept", "north",
    ):  # fmt: skip
        assert expected in words, expected
    assert page.text.count("cat") > 5


def test_page_needs_nothing_from_outside(model: Any, tmp_path: Path) -> None:
    result = _result(model)
    path = render(result, model, _inputs(result), path=tmp_path / "report.html")
    source, page = path.read_text(), _read(path)
    policy = next(
        str(attributes["content"])
        for tag, attributes in page.tags
        if tag == "meta" and attributes.get("http-equiv") == "Content-Security-Policy"
    )
    style = re.search(r"<style>(.*?)</style>", source, re.DOTALL)
    assert style
    assert base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode() in policy
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    for tag, attributes in page.tags:
        assert tag not in {"script", "link", "iframe", "object", "base", "form"}
        assert not {
            name for name in attributes if name.startswith("on") or name in {"style", "href", "srcset"}
        }
        assert (attributes.get("src") or "data:").startswith("data:image/jpeg;base64,") or tag != "img"
    assert "url(" not in style[1]
    assert "/home/someone" not in source


def test_hostile_names_are_shown_not_run(model: Any, tmp_path: Path) -> None:
    result = _result(model, labels=HOSTILE)
    page = _read(render(result, model, _inputs(result), path=tmp_path / "report.html"))
    assert not [tag for tag, _ in page.tags if tag in {"script", "b"}]
    for name in HOSTILE[:2]:
        assert name in page.text
    assert all((attributes["src"] or "").startswith("data:") for tag, attributes in page.tags if tag == "img")


def test_parts_that_are_missing_are_left_out(model: Any, tmp_path: Path) -> None:
    result = replace(_result(model), baseline=None, race=(), history=(), audit=Audit(60, 60))
    page = _read(render(result, model, {}, path=tmp_path / "report.html"))
    assert "The audit found nothing wrong" in page.text
    assert "pictures were not at hand" in page.text
    assert "from scratch" not in page.text
    assert "The race" not in page.text


def test_an_encoder_without_maps_is_said(model: Any, tmp_path: Path) -> None:
    width = {"pooled": model.encoder.spec.width["pooled"]}
    encoder = _Wrapped(model.encoder, replace(model.encoder.spec, width=width))
    result = _result(model)
    path = render(result, _model(encoder, model.head), _inputs(result), path=tmp_path / "r.html")
    assert "has no spatial map, so there is no heat map" in path.read_text()


class _Wrapped:
    """An encoder with another spec."""

    def __init__(self, encoder: Any, spec: EncoderSpec) -> None:
        self._encoder, self.spec = encoder, spec

    def __getattr__(self, name: str) -> Any:
        return getattr(self._encoder, name)

    def __call__(self, inputs: torch.Tensor, form: Any) -> Features:
        return self._encoder(inputs, form)


def test_json_holds_the_same_numbers(model: Any) -> None:
    result = _result(model)
    written = json.loads(json.dumps(to_json(result), allow_nan=False))
    assert Evaluation.from_json(written["evaluation"]) == result.evaluation
    assert Evaluation.from_json(written["baseline"]["evaluation"]) == result.baseline.evaluation
    assert written["baseline"]["difference"]["value"] == result.baseline.difference.value
    assert written["verdict"] == verdict(result)
    assert written["receipt"]["transferred"] == 1.0
    assert len(written["predictions"]) == 60
    assert written["plan"]["start"]["data"]["uri"] == written["plan"]["data"]["uri"] == "pets"
    assert "/home/someone" not in json.dumps(written)


def test_card_survives_hostile_names(model: Any) -> None:
    result = _result(model, labels=HOSTILE)
    text = card(result, model.encoder.spec)
    _, front, body = text.split("---\n", 2)
    values = dict(line.split(": ", 1) for line in front.splitlines())
    assert json.loads(values["license"]) == "apache-2.0"
    metrics = json.loads(values["model-index"])[0]["results"][0]["metrics"]
    assert metrics[0]["value"] == round(result.evaluation.score("accuracy").value, 4)
    assert "<script" not in re.sub(r"`[^`\n]*`", "", body)
    assert "\n# *loud*" not in body
    assert "/home/someone" not in text
    assert "headstart predict" in body


def test_card_names_licences_that_the_hub_does_not_know(model: Any) -> None:
    text = card(_result(model), replace(model.encoder.spec, licence="Research only"))
    assert 'license: "other"' in text
    assert 'license_name: "Research only"' in text


def test_verdict_follows_the_paired_difference(model: Any) -> None:
    result = _result(model)

    def said(low: float, value: float, high: float) -> str:
        difference = Score("accuracy_difference", value, low, high, 60)
        return compared(replace(result, baseline=replace(result.baseline, difference=difference)))

    assert "gained 10.0 points" in said(0.02, 0.1, 0.18)
    assert "may be chance" in said(-0.02, 0.03, 0.08)
    assert "lost 5.0 points" in said(-0.09, -0.05, -0.01)


def test_cautions_name_small_tests_and_bad_domains(model: Any) -> None:
    result = _result(model)
    assert any("test set is small (60 pictures)" in sentence for sentence in cautions(result))
    assert any("The audit found" in sentence for sentence in cautions(result))
    targets = np.arange(200) % 2
    hit = np.arange(200) < 110
    probabilities = np.eye(2)[np.where(hit, targets, 1 - targets)]
    apart = evaluate(
        probabilities, targets, labels=["a", "b"], domains=["new" if h < 100 else "old" for h in range(200)]
    )
    assert any("Domains differ" in s for s in cautions(replace(result, evaluation=apart, audit=Audit(1, 1))))


def test_group_rows_cover_every_tensor(model: Any) -> None:
    receipt = model.encoder.receipt
    rows = group_rows(receipt, model)
    assert [row.name for row in rows] == [group.name for group in model.encoder.layer_groups()]
    assert sum(row.num_tensors for row in rows) == len(receipt.tensors)
    assert all(sum(row.shares.values()) == pytest.approx(1) for row in rows)


@pytest.mark.parametrize("classes", [2, 6, 12, 25, 50, 60])
def test_confusion_matrix_of_any_size_is_well_formed(classes: int) -> None:
    draws = np.random.default_rng(classes)
    targets = np.arange(classes * 4) % classes
    labels = [f"class <{index}> & a name that is far too long" for index in range(classes)]
    evaluation = evaluate(
        softmax(draws.normal(size=(len(targets), classes))), targets, labels=labels, resamples=2
    )
    tree = ElementTree.fromstring(str(charts.confusion(evaluation)))
    shown = [node for node in tree.iter("text") if (node.get("class") or "").startswith(("hit", "miss"))]
    assert len(charts.most_mistaken(evaluation)) == min(classes, 50)
    if classes <= 50:
        assert sum(int(node.text or 0) for node in shown) == len(targets)
    assert float(tree.attrib["width"]) < 1050


def test_charts_bear_odd_values() -> None:
    assert str(charts.curves({"a": []}, heading="Loss")) == ""
    one = charts.curves({"a": [(1, 0.5)], "b": [(1, float("nan"))]}, heading="Loss", mark=1)
    assert "nan" not in str(one)
    ElementTree.fromstring(str(one))
    ElementTree.fromstring(str(charts.whisker(2.0, -1.0, 3.0)))
    ElementTree.fromstring(str(charts.stack({"loaded": 0.0, "fresh": 1.0})))
    assert charts.span_of([0.83, 0.9], [0.88, 0.96]) == (0.8, 1.0)


def test_words_for_numbers() -> None:
    assert (count(1, "class"), count(1200, "class"), count(2, "picture")) == (
        "1 class",
        "1,200 classes",
        "2 pictures",
    )
    assert [duration(seconds) for seconds in (0.01, 4.2, 42, 250, 7500)] == [
        "< 0.1 s", "4.2 s", "42 s", "4 min 10 s", "2 h 05 min",
    ]  # fmt: skip


class _Spot(nn.Module):
    """Brightness as a map [N, 2, 4, 4] in one of three layouts, then its mean."""

    def __init__(self, layout: str) -> None:
        super().__init__()
        self.layout = layout
        self.cells = nn.Conv2d(1, 2, 8, 8, bias=False)
        self.lay = nn.Identity()
        nn.init.ones_(self.cells.weight)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        cells = self.cells(pictures.float())
        if self.layout == "tokens":
            tokens = self.lay(torch.cat([torch.zeros(len(cells), 1, 2), cells.flatten(2).transpose(1, 2)], 1))
            return tokens[:, 1:].mean(1)
        if self.layout == "last":
            return self.lay(cells.permute(0, 2, 3, 1)).mean((1, 2))
        return self.lay(cells).mean((2, 3))


@pytest.mark.parametrize("layout", ["first", "last", "tokens"])
def test_heat_lies_where_the_evidence_is(layout: str) -> None:
    network = _Spot(layout).requires_grad_(False)
    contract = InputContract((32, 32), (0.5,), (0.5,), 1)
    spec = EncoderSpec("spot", "image", {"pooled": 2, "map": 2}, contract, "", "MIT", "here")

    def encode(pictures: torch.Tensor, form: Any) -> Features:
        return Features(form, network.cells(pictures.float()) if form == "map" else network(pictures))

    encoder = _Callable(encode, spec, network)
    head = LinearHead(2, 2)
    head.load_state_dict({**head.state_dict(), "weight": torch.tensor([[1.0, 1.0], [-1.0, -1.0]])})
    pictures = torch.zeros(1, 1, 32, 32, dtype=torch.uint8)
    pictures[:, :, 8:16, 24:32] = 200
    heat = look(_model(encoder, head), pictures, [0]).heat
    assert heat is not None
    expected = np.zeros((4, 4))
    expected[1, 3] = 1
    assert heat[0] == pytest.approx(expected)
    against = look(_model(encoder, head), pictures, [1]).heat
    assert against is None or against.max() == 0
    assert not network.cells._forward_hooks
    assert network.cells.weight.grad is None


class _Callable:
    """A function with the attributes of an encoder."""

    def __init__(self, encode: Any, spec: EncoderSpec, module: nn.Module) -> None:
        self._encode, self.spec, self.module = encode, spec, module

    def __call__(self, inputs: torch.Tensor, form: Any) -> Features:
        return self._encode(inputs, form)


@pytest.mark.parametrize("opened", [open_tiny_cnn, open_tiny_transformer])
@pytest.mark.parametrize("form", ["pooled", "depths"])
def test_frozen_encoders_have_heat(opened: Any, form: Any) -> None:
    encoder = opened(Pretrained(name="tiny"))
    encoder.module.requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in encoder.module.state_dict().items()}
    torch.manual_seed(0)
    head = LinearHead(encoder.spec.width[form], 2, form=form)
    nn.init.normal_(head.weight)
    pictures = torch.randint(0, 255, (3, 3, 32, 32), dtype=torch.uint8)
    seen = look(_model(encoder, head), pictures, [0, 1, 0])
    assert seen.heat is not None
    assert seen.heat.shape == (3, 4, 4)
    assert 0 <= seen.heat.min() <= seen.heat.max() <= 1
    assert all(torch.equal(before[name], tensor) for name, tensor in encoder.module.state_dict().items())


def test_a_fine_tuning_that_lost_is_not_called_one(model: Any) -> None:
    result = replace(_result(model), race=(Candidate("fine-tuned", 0.9, 0.01, 0.3, 9.0, chosen=True),))
    assert "fine-tuned with a new head" in verdict(result)[0]
    lost = replace(result, race=(Candidate("logistic", 0.9, 0.01, 0.3, 9.0, chosen=True),))
    assert "A new head on the frozen network" in verdict(lost)[0]
