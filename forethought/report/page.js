// Builds the transcripts on demand. Texts enter the page only as textContent; harmful-labelled ones only after a click.
"use strict";
(() => {
  const { models, groups } = JSON.parse(document.getElementById("data").textContent);
  const list = document.getElementById("list");
  const more = document.getElementById("more");
  const form = document.getElementById("filter");
  const field = form.elements;
  const PAGE = Math.max(1, Math.round(60 / models.length)); // About 60 transcripts at a time.
  let matching = [];
  let shown = 0;

  const make = (tag, className, ...children) => {
    const node = document.createElement(tag);
    if (className) node.className = className;
    node.append(...children.filter((child) => child !== null));
    return node;
  };

  // A stand-in of the same outline, so that nothing hidden is in the page to be found, copied, printed or read aloud.
  const outline = (text) => text.slice(0, 280).replace(/\S/gu, "x");

  const block = (text, open, heading) => {
    if (!text) return null;
    const body = make("div", open ? "text" : "text veiled", open ? text : outline(text));
    body.dir = "auto";
    if (!open) body.setAttribute("aria-hidden", "true");
    return heading ? make("div", "part", make("span", "role", heading), body) : body;
  };

  const sent = (turns, open) =>
    turns.map(([role, text]) => block(text, open, turns.length > 1 || role !== "user" ? role : "sent"));

  const tone = (score) => (score === null ? "other" : score >= 0.5 ? "passed" : "held");
  const badge = (verdict) => make("span", "verdict " + tone(verdict.score), verdict.label.replaceAll("_", " "));

  const reasoning = (answer, open) => {
    if (!answer.reasoning) return null;
    const summary = make("summary", "", `Reasoning, ${answer.reasoning.length} characters`);
    return make("details", "", summary, block(answer.reasoning, open));
  };

  const evidence = (verdict, open) =>
    make("div", "evidence", make("bdi", "", verdict.judge + " judge"), badge(verdict), open && verdict.why ? make("bdi", "", verdict.why) : null);

  const answerNode = (answer, open, index) => {
    const name = make("span", "who m" + (answer.m % 6), legend[answer.m].cloneNode(true), make("bdi", "", models[answer.m]));
    const facts = `${answer.status.replaceAll("_", " ")}${answer.cut ? ", cut at the limit" : ""} · ${answer.tokens} tokens`;
    return make(
      "div", "answer",
      make("div", "top", name, make("span", "fine", facts)),
      ...answer.verdicts.map((verdict) => evidence(verdict, open)),
      ...(answer.sent ? sent(answer.sent, open) : []),
      block(answer.error, open, "error"),
      reasoning(answer, open),
      block(answer.answer, open) || make("div", "fine", "no answer"),
    );
  };

  const legend = [...document.querySelectorAll(".rates thead .badge, .card .badge")].slice(0, models.length);

  const groupNode = (group, index) => {
    const closed = group.label === "harmful";
    const article = make("article", "group");
    const fill = (open) => {
      const chips = [group.attack, group.label, group.category].filter(Boolean).map((text) => make("span", "chip", text));
      chips.push(...group.met.map((text) => make("span", "chip seen", text)));
      if (open) chips.push(make("bdi", "fine", `${group.source} · ${group.id}${group.sample ? " · sample " + group.sample : ""}`));
      const head = make("header", "", ...chips);
      if (closed) {
        const button = make("button", "reveal", open ? "Hide the texts" : "Show the texts");
        button.type = "button";
        button.setAttribute("aria-pressed", String(open));
        button.addEventListener("click", () => {
          fill(!open);
          article.querySelector(".reveal").focus();
        });
        head.append(button);
      }
      const only = field.model.value;
      const answers = group.answers.filter((answer) => only === "" || answer.m === Number(only));
      article.replaceChildren(
        head,
        ...sent(group.sent, open),
        ...[block(group.request, open, "the request behind it")].filter(Boolean),
        make("div", "answers", ...answers.map((answer) => answerNode(answer, open))),
      );
    };
    fill(!closed);
    if (closed) {
      article.addEventListener("click", (event) => {
        if (event.target.closest(".veiled")) article.querySelector(".reveal").click();
      });
    }
    return article;
  };

  const showMore = () => {
    list.append(...matching.slice(shown, shown + PAGE).map(groupNode));
    shown = Math.min(matching.length, shown + PAGE);
    more.hidden = shown === matching.length;
    more.textContent = `Show ${Math.min(PAGE, matching.length - shown)} more of ${matching.length - shown}`;
  };

  const said = (answer) => answer.verdicts.map((verdict) => verdict.label).join() || answer.status;

  const filter = () => {
    const [model, attack, label, verdict] = ["model", "attack", "label", "verdict"].map((name) => field[name].value);
    matching = groups.filter((group) => {
      const answers = group.answers.filter((answer) => model === "" || answer.m === Number(model));
      return (
        answers.length > 0 &&
        (!attack || group.attack === attack) &&
        (!label || group.label === label) &&
        (!verdict || answers.some((answer) => answer.verdicts.some((v) => v.label === verdict))) &&
        (!field.differ.checked || new Set(group.answers.map(said)).size > 1)
      );
    });
    shown = 0;
    list.replaceChildren();
    field.found.value = matching.length === 1 ? "1 prompt" : `${matching.length} prompts`;
    showMore();
  };

  form.hidden = false;
  form.addEventListener("change", filter);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.reset();
  more.addEventListener("click", showMore);

  // What is folded away on screen is printed.
  addEventListener("beforeprint", () => document.querySelectorAll("details.family").forEach((family) => (family.open = true)));

  document.querySelectorAll("a.read").forEach((link) => {
    link.addEventListener("click", () => {
      form.reset();
      field.attack.value = link.dataset.attack;
      field.label.value = link.dataset.label;
      filter();
    });
  });

  document.querySelectorAll(".command").forEach((box) => {
    const button = make("button", "copy", "Copy");
    button.type = "button";
    button.addEventListener("click", async () => {
      const pre = box.querySelector("pre");
      getSelection().selectAllChildren(pre);
      try {
        await navigator.clipboard.writeText(pre.textContent);
        button.textContent = "Copied";
      } catch {
        button.textContent = "Selected: press Ctrl+C";
      }
    });
    box.append(button);
  });

  filter();
  document.documentElement.dataset.ready = String(groups.length);
})();
