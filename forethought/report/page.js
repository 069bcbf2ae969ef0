// Builds the transcripts on demand. Texts enter the page only as textContent; harmful-labelled ones only after a click.
"use strict";
(async () => {
  const make = (tag, className, ...children) => {
    const node = document.createElement(tag);
    if (className) node.className = className;
    node.append(...children.filter((child) => child !== null));
    return node;
  };

  // What is folded away on screen is printed.
  addEventListener("beforeprint", () => document.querySelectorAll("details.family, details.counts").forEach((part) => (part.open = true)));

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

  const { models, masked, chunk, count, index, chunks } = JSON.parse(document.getElementById("data").textContent);
  const list = document.getElementById("list");
  const more = document.getElementById("more");
  const form = document.getElementById("filter");
  const field = form.elements;
  const JUDGES_DIFFER = 1;
  const THOUGHT_DIFFERS = 2;
  const PAGE = Math.max(1, Math.round(60 / models.length)); // About 60 transcripts at a time.

  const unpack = async (text) => {
    const bytes = Uint8Array.from(atob(text), (char) => char.charCodeAt(0));
    return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"))).json();
  };

  if (!("DecompressionStream" in globalThis)) {
    list.prepend(make("p", "caution", "This browser is too old to unpack the transcripts (it has no DecompressionStream): these are a few of them. Every number is here."));
    return;
  }

  const { attacks, labels, judges, words, rows } = await unpack(index);
  const loading = new Map();
  const texts = (place) => {
    const at = Math.floor(place / chunk);
    if (!loading.has(at)) loading.set(at, unpack(chunks[at]));
    return loading.get(at).then((groups) => groups[place % chunk]);
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
    const summary = make("summary", "", masked ? "Reasoning" : `Reasoning, ${answer.reasoning.length} characters`);
    return make("details", "", summary, block(answer.reasoning, open));
  };

  const evidence = (verdict, open) =>
    make("div", "evidence", make("bdi", "", verdict.judge + " judge"), badge(verdict), open && verdict.why ? make("bdi", "", verdict.why) : null);

  const legend = [...document.querySelectorAll(".rates thead .badge, .card .badge")].slice(0, models.length);

  const answerNode = (answer, open) => {
    const name = make("span", "who m" + (answer.m % 6), legend[answer.m].cloneNode(true), make("bdi", "", models[answer.m]));
    const facts = `${answer.status.replaceAll("_", " ")}${answer.cut ? ", cut at the limit" : ""} · ${answer.tokens} tokens`;
    return make(
      "div", "answer",
      make("div", "top", name, make("span", "fine", facts)),
      ...answer.verdicts.map((verdict) => evidence(verdict, open)),
      answer.flags & JUDGES_DIFFER ? make("div", "note warn", "judges differ") : null,
      answer.flags & THOUGHT_DIFFERS ? make("div", "note warn", "thought and answer differ") : null,
      ...(answer.sent ? sent(answer.sent, open) : []),
      block(answer.error, open, "error"),
      reasoning(answer, open),
      block(answer.answer, open) || make("div", "fine", "no answer"),
    );
  };

  const groupNode = (group) => {
    const closed = group.label === "harmful" && !masked;
    const article = make("article", "group");
    article.id = "t-" + group.ref;
    const fill = (open) => {
      const chips = [group.attack, group.label, group.category].filter(Boolean).map((text) => make("span", "chip", text));
      chips.push(...group.met.map((text) => make("span", "chip seen", text)));
      if (open) chips.push(make("bdi", "fine", `${group.source} · ${group.id}${group.sample ? " · sample " + group.sample : ""}`));
      const link = make("a", "permalink", "link");
      link.href = "#t-" + group.ref;
      link.setAttribute("aria-label", "Link to this transcript");
      const head = make("header", "", ...chips, link);
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
        ...sent(group.sent, open).filter(Boolean),
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

  let matching = [];
  let shown = 0;
  let turn = 0; // Counts filters, so that a slow one does not write over a later one.

  const showMore = async () => {
    const [own, from] = [turn, shown];
    const found = await Promise.all(matching.slice(from, from + PAGE).map(texts));
    if (own !== turn || from !== shown) return; // Another filter, or another click.
    if (!shown) list.replaceChildren();
    list.append(...found.map(groupNode));
    shown = Math.min(matching.length, shown + PAGE);
    more.hidden = shown === matching.length;
    more.textContent = `Show ${Math.min(PAGE, matching.length - shown)} more of ${matching.length - shown}`;
  };

  const show = async (found, what) => {
    matching = found;
    shown = 0;
    field.found.value = what ?? (found.length === 1 ? "1 prompt" : `${found.length} prompts`);
    await showMore();
    document.documentElement.dataset.ready = String(turn); // For whoever drives the page.
  };

  // An answer is [model, flags, judge, verdict, judge, verdict, ...].
  // What the judges that spoke on all of a prompt's answers said of each, whatever order they spoke in.
  const shared = (all) => {
    const said = all.map((answer) => {
      const words = new Map();
      for (let i = 2; i < answer.length; i += 2) words.set(answer[i], answer[i + 1]);
      return words;
    });
    const common = [...(said[0] ?? new Map()).keys()].filter((judge) => said.every((words) => words.has(judge))).sort();
    return said.map((words) => common.map((judge) => words.get(judge)).join());
  };
  const spoke = (answer, judge, word) => {
    for (let i = 2; i < answer.length; i += 2) {
      if ((judge === null || answer[i] === judge) && (word === null || answer[i + 1] === word)) return true;
    }
    return false;
  };
  const place = (known, name) => (name ? known.indexOf(name) : null);

  const kept = () => {
    const [model, differ] = [field.model.value, field.differ.value];
    const [attack, label] = [place(attacks, field.attack.value), place(labels, field.label.value)];
    const [judge, word] = [place(judges, field.judge.value), place(words, field.verdict.value)];
    const flag = differ === "judges" ? JUDGES_DIFFER : differ === "thought" ? THOUGHT_DIFFERS : 0;
    const found = [];
    rows.forEach(([, ofAttack, ofLabel, all], at) => {
      if ((attack !== null && ofAttack !== attack) || (label !== null && ofLabel !== label)) return;
      if (differ === "models" && new Set(shared(all)).size < 2) return;
      const fits = (answer) =>
        (model === "" || answer[0] === Number(model)) &&
        ((judge === null && word === null) || spoke(answer, judge, word)) &&
        (answer[1] & flag) === flag;
      if (all.some(fits)) found.push(at);
    });
    return found;
  };

  // Everything that is read of a transcript, in lower case; made once, when it is first searched.
  const haystack = [];
  const hay = (group) =>
    [group.request, ...group.sent.map(([, text]) => text), ...group.answers.flatMap((a) => [a.reasoning, a.answer, a.error, ...(a.sent ?? []).map(([, text]) => text)])]
      .join("\n")
      .toLowerCase();

  const search = async (found, text, own) => {
    const wanted = text.toLowerCase().split(/\s+/).filter(Boolean);
    const hits = [];
    for (const at of found) {
      if (haystack[at] === undefined) {
        haystack[at] = hay(await texts(at));
        if (own !== turn) return null;
      }
      if (wanted.every((word) => haystack[at].includes(word))) hits.push(at);
    }
    return hits;
  };

  const filter = async () => {
    const own = ++turn;
    let found = kept();
    if (field.text.value.trim()) {
      field.found.value = "searching…";
      found = await search(found, field.text.value, own);
    }
    if (found !== null && own === turn) await show(found);
  };

  // #t-… names one transcript.
  const follow = async () => {
    const named = /^#t-([0-9a-f]+)$/.exec(location.hash);
    if (!named) return false;
    const at = rows.findIndex(([ref]) => ref === named[1]);
    form.reset();
    turn++;
    await show(at < 0 ? [] : [at], at < 0 ? "not on this page" : "1 prompt, by its link");
    document.getElementById("transcripts").scrollIntoView();
    return true;
  };

  let waiting;
  form.hidden = false;
  form.addEventListener("change", (event) => event.target !== field.text && filter());
  field.text.addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(filter, 200);
  });
  form.addEventListener("submit", (event) => event.preventDefault());
  more.addEventListener("click", showMore);
  form.querySelector("[type=reset]").addEventListener("click", () => {
    history.replaceState(null, "", "#transcripts");
    setTimeout(filter);
  });
  addEventListener("hashchange", follow);
  // A link to what the address names already changes nothing there.
  addEventListener("click", (event) => location.hash && event.target.closest(`a[href="${location.hash}"]`) && follow());

  document.querySelectorAll("a.read[data-attack]").forEach((link) => {
    link.addEventListener("click", () => {
      form.reset();
      field.attack.value = link.dataset.attack;
      field.label.value = link.dataset.label;
      filter();
    });
  });

  form.reset();
  if (!(await follow())) await filter();
  document.documentElement.dataset.transcripts = String(count);
})();
