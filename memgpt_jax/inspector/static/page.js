(() => {
  "use strict";
  const BLOCK = 120; // tokens of a block, which is drawn when it comes near
  const $ = (id) => document.getElementById(id);

  // ---- data -------------------------------------------------------------------------------------------------------
  const TYPES = { float32: Float32Array, int32: Int32Array, uint8: Uint8Array, bool: Uint8Array };

  function decoded(value) {
    if (Array.isArray(value)) return value.map(decoded);
    if (value === null || typeof value !== "object") return value;
    if ("dtype" in value && "data" in value) {
      const bytes = Uint8Array.from(atob(value.data), (character) => character.charCodeAt(0));
      const array = new TYPES[value.dtype](bytes.buffer);
      array.width = value.shape.length > 1 ? value.shape[1] : 1;
      return array;
    }
    return Object.fromEntries(Object.entries(value).map(([name, each]) => [name, decoded(each)]));
  }

  let trace = null; // the trace that is shown
  let session = null; // the document after it, on the server
  let selected = -1;
  let layer = 0; // an index into trace.layers
  let colour = "bits";
  let readers = []; // for each layer, once it is needed: by the names of entries, the tokens that read them

  const layerOf = () => trace.layers[layer] ?? null;

  const COLOURS = {
    bits: { name: "bits of the token", low: "likely", high: "unlikely", value: (i) => trace.bits[i] / 12 },
    saved: {
      name: "bits that memory saves",
      low: "memory harms",
      high: "memory helps",
      diverging: true,
      value: (i) => (trace.bits_without[i] - trace.bits[i]) / 6,
      exists: () => trace.bits_without !== null,
    },
    write: {
      name: "write gate", low: "0", high: "1",
      value: (i) => layerOf().write_gate[i],
      exists: () => Boolean(layerOf()?.write_gate),
    },
    fusion: {
      name: "fusion gate", low: "0", high: "1",
      value: (i) => layerOf().fusion_gate[i],
      exists: () => Boolean(layerOf()),
    },
    mass: {
      name: "reads of entries", low: "0", high: "1",
      value: (i) => mean(layerOf().read_mass, i),
      exists: () => Boolean(layerOf()?.read_mass),
    },
  };

  function mean(matrix, row) {
    let sum = 0;
    for (let column = 0; column < matrix.width; column++) sum += matrix[row * matrix.width + column];
    return sum / matrix.width;
  }

  /** Colours that people with colour blindness tell apart, to blue, and from orange to blue, below readable text. */
  function shade(value, diverging) {
    if (!Number.isFinite(value)) return "";
    const strength = Math.min(1, Math.abs(value));
    const hue = diverging && value < 0 ? "190 110 0" : "0 114 178";
    return strength < 0.02 ? "" : `rgb(${hue} / ${(0.75 * strength).toFixed(3)})`;
  }

  // ---- the text ---------------------------------------------------------------------------------------------------
  const view = $("document");
  let blocks = [];
  const near = new IntersectionObserver(
    (entries) => {
      for (const entry of entries) {
        const block = blocks[Number(entry.target.dataset.block)];
        if (entry.isIntersecting) draw(block);
        else clear(block, entry.boundingClientRect.height);
      }
    },
    { root: view, rootMargin: "300px" },
  );

  function layOut() {
    near.disconnect();
    view.replaceChildren();
    blocks = [];
    const parts = document.createDocumentFragment();
    for (let start = 0; start < trace.tokens.length; start += BLOCK) {
      const element = document.createElement("div");
      element.className = "block";
      element.dataset.block = blocks.length;
      const end = Math.min(start + BLOCK, trace.tokens.length);
      let characters = 0, lines = 0;
      for (let i = start; i < end; i++) {
        characters += trace.texts[i].length;
        lines += trace.texts[i].split("\n").length - 1;
      }
      element.style.minHeight = `${Math.max(1, lines + characters / 90) * 1.75}em`;
      blocks.push({ element, start, end, drawn: false });
      parts.append(element);
    }
    view.append(parts);
    for (const block of blocks) near.observe(block.element);
    if (blocks.length) draw(blocks[0]);
  }

  function draw(block) {
    if (block.drawn) return;
    const parts = document.createDocumentFragment();
    for (let i = block.start; i < block.end; i++) {
      const span = document.createElement("span");
      span.className = "token";
      span.dataset.token = i;
      span.textContent = trace.texts[i].replace(/\n/g, "↵\n") || "·";
      paint(span, i);
      parts.append(span);
    }
    block.element.replaceChildren(parts);
    block.element.style.minHeight = "";
    block.drawn = true;
    mark(block);
  }

  function clear(block, height) {
    if (!block.drawn) return;
    block.element.style.minHeight = `${height}px`;
    block.element.replaceChildren();
    block.drawn = false;
  }

  function paint(span, i) {
    const kind = COLOURS[colour];
    span.style.backgroundColor = shade(kind.value(i), kind.diverging);
  }

  function repaint() {
    for (const block of blocks) if (block.drawn) for (const span of block.element.children) paint(span, Number(span.dataset.token));
    const kind = COLOURS[colour];
    $("legend").textContent = `${kind.name}: ${kind.low} → ${kind.high}`;
  }

  const marked = () => {
    const found = { sources: new Set(), readers: new Set() };
    if (selected < 0 || !layerOf()) return found;
    for (const entry of entriesOf(selected)) for (let i = 0; i < entry.length; i++) found.sources.add(entry.token + i);
    for (const reader of readersOf(selected)) found.readers.add(reader.token);
    return found;
  };
  let marks = { sources: new Set(), readers: new Set() };

  function mark(block) {
    for (const span of block.element.children) {
      const i = Number(span.dataset.token);
      span.classList.toggle("selected", i === selected);
      span.classList.toggle("source", marks.sources.has(i));
      span.classList.toggle("reader", marks.readers.has(i));
    }
  }

  function remark() {
    marks = marked();
    for (const block of blocks) if (block.drawn) mark(block);
  }

  // ---- entries ----------------------------------------------------------------------------------------------------
  /** The entries that a token reads most; `token` is the place in this text, negative if it lies before. */
  function entriesOf(i) {
    const record = layerOf();
    if (!record || !record.top_entry) return [];
    const width = record.top_entry.width, found = [];
    for (let column = 0; column < width; column++) {
      const at = i * width + column;
      if (record.top_entry[at] < 0 || record.top_weight[at] <= 0) continue;
      const name = record.top_entry[at];
      found.push({
        name,
        token: record.has_places ? name - trace.first : -1,
        length: record.has_places ? record.top_length[at] : 0,
        weight: record.top_weight[at],
        head: record.top_head[at],
      });
    }
    return found;
  }

  /** The tokens that read the entry of a token, the heaviest first. */
  function readersOf(i) {
    const record = layerOf();
    if (!record || !record.has_places) return [];
    if (!readers[layer]) {
      const index = new Map(), width = record.top_entry.width;
      let longest = 1;
      for (let at = 0; at < record.top_entry.length; at++) {
        const name = record.top_entry[at], length = record.top_length[at];
        if (name < 0) continue;
        longest = Math.max(longest, length);
        if (!index.has(name)) index.set(name, []);
        index.get(name).push({ token: Math.floor(at / width), weight: record.top_weight[at], length });
      }
      readers[layer] = { index, longest };
    }
    const { index, longest } = readers[layer], token = trace.first + i, found = [];
    for (let name = token - longest + 1; name <= token; name++) {
      for (const each of index.get(name) ?? []) if (token < name + each.length) found.push(each);
    }
    return found.sort((a, b) => b.weight - a.weight).slice(0, 30);
  }

  /** The tokens to which the window's attention gives the largest weights. */
  function windowOf(i) {
    const { window_token: tokens, window_weight: weights } = layerOf(), found = [];
    for (let at = i * tokens.width; at < (i + 1) * tokens.width; at++)
      if (tokens[at] >= 0) found.push({ token: tokens[at] - trace.first, weight: weights[at] });
    return found;
  }

  function callOf(i) {
    let low = 0, high = trace.calls.length - 2;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (trace.calls[middle] <= i) low = middle; else high = middle - 1;
    }
    return low;
  }

  // ---- the panel --------------------------------------------------------------------------------------------------
  function element(name, properties = {}, ...children) {
    const made = Object.assign(document.createElement(name), properties);
    made.append(...children);
    return made;
  }

  function context(token, length) {
    const cell = element("td", { className: "context" });
    if (token < 0) return Object.assign(cell, { textContent: "before this text" });
    const before = trace.texts.slice(Math.max(0, token - 8), token).join("");
    const own = trace.texts.slice(token, token + length).join("") || "·";
    const after = trace.texts.slice(token + length, token + length + 8).join("");
    const words = [before.slice(-40), element("b", { textContent: own }), after.slice(0, 40)];
    cell.append(element("button", { type: "button", title: `token ${trace.first + token}` }, ...words));
    return cell;
  }

  function row(weight, token, length, extra) {
    const bar = element("span", { className: "bar" });
    bar.style.width = `${Math.max(1, Math.round(60 * Math.min(1, weight)))}px`;
    const line = element(
      "tr", { className: token >= 0 ? "link" : "" },
      element("td", {}, bar), element("td", { className: "number", textContent: weight.toFixed(3) }),
      ...extra.map((text) => element("td", { className: "number", textContent: text })), context(token, Math.max(1, length)),
    );
    if (token >= 0) line.addEventListener("click", () => { select(token); view.focus({ preventScroll: true }); });
    return line;
  }

  function table(heads, rows) {
    return element("table", {}, element("tr", {}, ...heads.map((head) => element("th", { textContent: head }))), ...rows);
  }

  function detail() {
    const panel = $("detail");
    if (selected < 0 || !trace) {
      panel.replaceChildren(element("p", { textContent: "Choose a token: what it reads, who reads it, and what memory changes." }));
      return;
    }
    const i = selected, record = layerOf(), parts = [];
    const text = trace.texts[i] === "" ? "(no text)" : JSON.stringify(trace.texts[i]);
    parts.push(element("h2", { textContent: `Token ${trace.first + i}: ${text}` }));
    const facts = [`segment ${callOf(i) + 1} of ${trace.calls.length - 1}`];
    if (Number.isFinite(trace.bits[i])) facts.push(`${trace.bits[i].toFixed(2)} bits`);
    if (trace.bits_without && Number.isFinite(trace.bits_without[i])) facts.push(`${trace.bits_without[i].toFixed(2)} without memory`);
    if (record?.write_gate) facts.push(`write gate ${record.write_gate[i].toFixed(3)}`);
    if (record) facts.push(`fusion gate ${record.fusion_gate[i].toFixed(3)}`);
    if (record?.evicted) {
      const evicted = record.evicted[i];
      const others = { "-1": "its entry is not evicted", "-2": "no entry is known to be its own" };
      facts.push(others[evicted] ?? `its entry is evicted before segment ${evicted + 1}`);
    }
    parts.push(element("p", { textContent: facts.join(" · ") }));
    if (!record) {
      parts.push(element("p", { textContent: "The model has no memory." }));
    } else if (!record.top_entry) {
      parts.push(element("p", { textContent: `A memory of the kind ${trace.mechanism} has no entries: see its statistics below.` }));
    } else {
      const heads = Array.from({ length: record.read_mass.width }, (_, head) => record.read_mass[i * record.read_mass.width + head]);
      parts.push(element("p", { textContent: `read mass by head: ${heads.map((mass) => mass.toFixed(2)).join("  ")}` }));
      const entries = entriesOf(i);
      parts.push(element("h2", { textContent: "Entries that it reads most" }));
      parts.push(
        entries.length === 0
          ? element("p", { textContent: "none" })
          : table(
              ["", "weight", "age", "head", record.has_places ? "tokens" : "place in memory"],
              entries.map((entry) => {
                const age = record.has_places && entry.token >= 0 ? String(callOf(i) - callOf(entry.token)) : "";
                const line = row(entry.weight, entry.token, entry.length, [age, String(entry.head)]);
                if (!record.has_places) line.lastChild.textContent = `entry ${entry.name}`;
                return line;
              }),
            ),
      );
      if (record.has_places) {
        const later = readersOf(i);
        parts.push(element("h2", { textContent: "Tokens that read its entry" }));
        parts.push(
          later.length === 0
            ? element("p", { textContent: "none among the heaviest reads" })
            : table(["", "weight", "tokens"], later.slice(0, 12).map((reader) => row(reader.weight, reader.token, 1, []))),
        );
      }
    }
    if (record) {
      const near = windowOf(i);
      parts.push(element("h2", { textContent: "Tokens that self-attention reads most" }));
      parts.push(table(["", "weight", "distance", "tokens"], near.map((each) => row(each.weight, each.token, 1, [String(i - each.token)]))));
    }
    panel.replaceChildren(...parts);
  }

  function select(i, scroll = true) {
    selected = i;
    if (i >= 0 && scroll) {
      const block = blocks[Math.floor(i / BLOCK)];
      draw(block);
      const span = block.element.children[i - block.start];
      span.scrollIntoView({ block: "nearest" });
    }
    remark();
    detail();
    slots();
    listEntries();
  }

  // ---- charts -----------------------------------------------------------------------------------------------------
  function prepared(canvas) {
    const scale = window.devicePixelRatio || 1, width = canvas.clientWidth;
    canvas.dataset.height ??= canvas.getAttribute("height"); // the attribute is overwritten below
    const height = Number(canvas.dataset.height), context = canvas.getContext("2d");
    canvas.width = width * scale;
    canvas.height = height * scale;
    canvas.style.height = `${height}px`;
    context.scale(scale, scale);
    const style = getComputedStyle(document.documentElement);
    return { context, width, height, soft: style.getPropertyValue("--soft"), accent: style.getPropertyValue("--accent") };
  }

  function charts() {
    const records = trace.layers.filter((record) => record.read_mass);
    const { context, width, height, soft } = prepared($("heads"));
    context.font = "11px system-ui";
    context.fillStyle = soft;
    if (records.length === 0) context.fillText("no entries", 4, 14);
    const columns = Math.max(0, ...records.map((record) => record.read_mass.width));
    const cell = { width: (width - 50) / columns, height: Math.min(18, (height - 4) / records.length) };
    records.forEach((record, line) => {
      context.fillStyle = soft;
      context.fillText(`layer ${record.layer}`, 0, line * cell.height + 12);
      for (let head = 0; head < columns; head++) {
        let sum = 0;
        for (let i = 0; i < trace.tokens.length; i++) sum += record.read_mass[i * columns + head];
        context.fillStyle = shade(sum / trace.tokens.length, false) || "transparent";
        context.fillRect(50 + head * cell.width, line * cell.height, cell.width - 1, cell.height - 1);
        context.strokeStyle = soft;
        context.strokeRect(50.5 + head * cell.width, line * cell.height + 0.5, cell.width - 2, cell.height - 2);
      }
    });
    series();
    slots();
  }

  const NEAR = 128; // tokens that it shows around the selected one
  const MAP_LEFT = 30; // pixels for the numbers of slots
  const MAPS = [
    { name: "reads", key: "slot_reads", colour: [0, 114, 178] },
    { name: "writes", key: "slot_writes", colour: [230, 159, 0] },
  ];

  /** The tokens that the map of slots shows: all, or those around the selected one. */
  function slotRange() {
    const number = trace.tokens.length, near = $("slot-near").checked && selected >= 0 && number > NEAR;
    if (!near) return { start: 0, end: number };
    const start = Math.min(Math.max(0, selected - NEAR / 2), number - NEAR);
    return { start, end: start + NEAR };
  }
  /** One map for reads and one for writes: tokens from left to right, slots from top to bottom. */
  function slots() {
    const record = layerOf();
    $("slots").hidden = !record?.slot_reads;
    if (!record?.slot_reads) return;
    const { context, width, height, soft, accent } = prepared($("slot-map"));
    const range = slotRange(), number = range.end - range.start, size = record.slot_reads.width;
    const left = MAP_LEFT, columns = Math.min(number, Math.floor(width - left)), each = height / MAPS.length;
    context.font = "11px system-ui";
    context.imageSmoothingEnabled = false;
    MAPS.forEach(({ name, key, colour }, index) => {
      const rows = Math.min(size, Math.floor(each - 18)), image = new ImageData(columns, rows), values = record[key];
      for (let i = range.start; i < range.end; i++) {
        const x = Math.floor(((i - range.start) * columns) / number);
        for (let slot = 0; slot < size; slot++) {
          const at = 4 * (Math.floor((slot * rows) / size) * columns + x) + 3;
          image.data[at] = Math.max(image.data[at], values[i * size + slot]); // of several in one place the heaviest
        }
      }
      for (let at = 0; at < image.data.length; at += 4) image.data.set(colour, at);
      const buffer = element("canvas", { width: columns, height: rows });
      buffer.getContext("2d").putImageData(image, 0, 0);
      const top = index * each + 14;
      context.fillStyle = soft;
      context.fillText(name, left, top - 4);
      context.fillText("0", 0, top + 9);
      context.fillText(String(size - 1), 0, top + each - 18);
      context.drawImage(buffer, left, top, width - left, each - 18);
      context.strokeStyle = soft;
      context.strokeRect(left + 0.5, top + 0.5, width - left - 1, each - 19);
      if (selected < range.start || selected >= range.end) return;
      const cell = (width - left) / number;
      context.strokeStyle = accent;
      context.strokeRect(left + (selected - range.start) * cell - 0.5, top - 2, Math.max(cell, 1) + 1, each - 14);
    });
    const first = trace.first + range.start;
    $("slot-legend").textContent = `tokens ${first} to ${first + number - 1} from left to right, ${size} slots from top to bottom; mean over heads`;
    $("slot-text").textContent = selected < 0 ? "" : slotText(record);
  }

  /** The heaviest slots of the selected token. */
  function slotText(record) {
    const parts = MAPS.map(({ name, key }) => {
      const size = record[key].width, values = Array.from(record[key].subarray(selected * size, (selected + 1) * size));
      const order = values.map((value, slot) => [value / 255, slot]).sort((a, b) => b[0] - a[0]).slice(0, 3);
      const heaviest = order.filter(([value]) => value > 0).map(([value, slot]) => `slot ${slot} (${value.toFixed(2)})`);
      return `${name} ${heaviest.join(", ") || "nothing"}`;
    });
    return `Token ${trace.first + selected} ${parts.join("; it ")}.`;
  }

  function series() {
    const { context, width, height, soft, accent } = prepared($("series"));
    const values = layerOf()?.stats[$("statistic").value];
    if (!values) return;
    const finite = Array.from(values).filter(Number.isFinite);
    const low = Math.min(0, ...finite), high = Math.max(...finite, low + 1e-9);
    context.font = "11px system-ui";
    context.fillStyle = soft;
    context.fillText(high.toPrecision(3), 0, 10);
    context.fillText(low.toPrecision(3), 0, height - 2);
    context.strokeStyle = accent;
    context.lineWidth = 1.5;
    context.beginPath();
    values.forEach((value, i) => {
      const x = 44 + ((width - 48) * i) / Math.max(1, values.length - 1);
      const y = height - 4 - ((height - 12) * (value - low)) / (high - low);
      if (i === 0) context.moveTo(x, y); else context.lineTo(x, y);
    });
    context.stroke();
  }

  // ---- a trace ----------------------------------------------------------------------------------------------------
  function options(select, pairs, value) {
    select.replaceChildren(...pairs.map(([key, name]) => element("option", { value: key, textContent: name })));
    if (pairs.some(([key]) => String(key) === String(value))) select.value = value;
    return select.value;
  }

  function show(values) {
    trace = decoded(values);
    readers = [];
    selected = -1;
    layer = 0;
    options($("layer"), trace.layers.map((record, index) => [index, `${record.layer}`]), 0);
    const shown = trace.tokens.length.toLocaleString("en");
    $("summary").textContent = `${trace.mechanism} memory · ${shown} tokens · segments of ${trace.segment_length} · ${trace.layers.length} layers with a memory`;
    choose();
    layOut();
    repaint();
    detail();
    charts();
    document.body.dataset.ready = "true";
  }

  function choose() {
    const kinds = Object.entries(COLOURS).filter(([, kind]) => !kind.exists || kind.exists());
    colour = options($("colour"), kinds.map(([key, kind]) => [key, kind.name]), colour);
    options($("statistic"), Object.keys(layerOf()?.stats ?? {}).map((name) => [name, name.replaceAll("_", " ")]), $("statistic").value);
  }

  function changeLayer(index) {
    if (!trace || index < 0 || index >= trace.layers.length) return;
    layer = index;
    $("layer").value = index;
    choose();
    repaint();
    remark();
    detail();
    listEntries();
    series();
    slots();
  }

  function changeColour(name) {
    colour = name;
    $("colour").value = name;
    repaint();
  }

  function changeTheme() {
    const root = document.documentElement;
    root.dataset.theme = root.dataset.theme === "dark" ? "light" : "dark";
    if (trace) charts();
  }

  // ---- the server -------------------------------------------------------------------------------------------------
  async function call(path, body) {
    const key = $("key").value;
    const headers = { "Content-Type": "application/json", ...(key ? { Authorization: `Bearer ${key}` } : {}) };
    const answer = await fetch(path, { method: "POST", headers, body: JSON.stringify(body) });
    const content = await answer.json().catch(() => null); // a proxy answers with HTML
    if (!answer.ok || !content) throw new Error(content?.error?.message ?? `status ${answer.status}`);
    return content;
  }

  /** Do the work and show its result; with `says`, nothing else can be asked for meanwhile. */
  async function attempt(work, says = true) {
    const status = $("status"), focused = document.activeElement;
    if (says) {
      status.className = "";
      status.textContent = "…";
      $("live").disabled = $("next").disabled = true;
    }
    try {
      const text = await work();
      if (says) status.textContent = text ?? "";
    } catch (error) {
      status.className = "error";
      status.textContent = error.message;
    }
    if (!says) return;
    $("live").disabled = $("next").disabled = false;
    if (document.activeElement === document.body) focused.focus({ preventScroll: true });
  }

  function compared(columns) {
    const names = Object.keys(columns);
    const rows = Array.from({ length: 10 }, (_, i) =>
      element("tr", {}, ...names.flatMap((name) => {
        const each = columns[name][i];
        return each
          ? [element("td", { className: "context", textContent: JSON.stringify(each.token) }), element("td", { className: "number", textContent: each.probability.toFixed(3) })]
          : [element("td"), element("td")];
      })),
    );
    $("comparison").replaceChildren(table(names.flatMap((name) => [name, ""]), rows));
  }

  const segmentOf = (i) => {
    const call = callOf(i);
    return { start: trace.first + trace.calls[call], end: trace.first + trace.calls[call + 1] };
  };

  async function compare(cut, name = "without the segment") {
    const found = await call("/v1/inspect/next", { session, ...cut });
    compared(cut.all ? { "with memory": found.with, "without memory": found.without } : { "as it is": found.with, [name]: found.without });
    return `${found.divergence.toFixed(3)} bits from the one distribution to the other`;
  }

  let listing = 0;

  /** The entries that come from the selected token, as the document holds them now, once the selection rests. */
  function listEntries() {
    const token = selected, number = layerOf()?.layer;
    $("entries").replaceChildren();
    clearTimeout(listing);
    if (!session || token < 0 || trace.mechanism !== "kv" || number === undefined) return;
    listing = setTimeout(
      () => attempt(async () => {
        const found = await call("/v1/inspect/entries", { session, layer: number, token: trace.first + token });
        if (token === selected && number === layerOf()?.layer) showEntries(number, found.data);
      }, false),
      200,
    );
  }
  function showEntries(number, entries) {
    const title = element("h2", { textContent: `Entries of the selected token in layer ${number}` });
    if (entries.length === 0) {
      $("entries").replaceChildren(title, element("p", { textContent: "none: not written yet, or no longer there" }));
      return;
    }
    const rows = entries.map((entry) => {
      const gate = element("input", { type: "number", min: 0, max: 1, step: 0.05, value: entry.gate.toPrecision(3), ariaLabel: "write gate" });
      const place = { layer: number, place: entry.place };
      const withGate = () => {
        if (gate.value === "") throw new Error("give a write gate from 0 to 1"); // as a number it would be 0
        return { ...place, gate: Number(gate.value) };
      };
      const button = (text, work) => {
        const made = element("button", { type: "button", textContent: text });
        made.addEventListener("click", () => attempt(work));
        return made;
      };
      return element(
        "tr", {},
        element("td", { className: "number", textContent: String(entry.place) }),
        element("td", { className: "number", textContent: String(entry.age) }),
        element("td", {}, gate),
        element(
          "td", {},
          button("Without it", () => compare(place, "without the entry")),
          button("With this gate", async () => compare(withGate(), "with the gate")),
          button("Set gate", async () => changed("edit", withGate(), "with the gate")),
          button("Delete", () => changed("edit", place, "without the entry")),
        ),
      );
    });
    $("entries").replaceChildren(title, table(["place", "age", "write gate", ""], rows));
  }

  /** Change the document, whose id is then a new one. */
  async function changed(path, body, name) {
    const found = await call(`/v1/inspect/${path}`, { session, ...body });
    const before = session;
    session = found.id;
    listEntries();
    return `${session} is ${before} ${name}`;
  }

  $("ask").addEventListener("submit", (event) => {
    event.preventDefault();
    attempt(async () => {
      const found = await call("/v1/inspect", { text: $("text").value, session: $("session").value || null });
      session = found.session;
      show(found.trace);
      $("next").hidden = false;
      $("comparison").replaceChildren();
      return `the document after it is ${session}`;
    });
  });
  $("without-memory").addEventListener("click", () => attempt(() => compare({ all: true })));
  $("without-token").addEventListener("click", () =>
    attempt(async () => (selected < 0 ? "choose a token" : compare(segmentOf(selected)))),
  );
  $("forget").addEventListener("click", () =>
    attempt(async () => (selected < 0 ? "choose a token" : changed("forget", segmentOf(selected), "without the segment"))),
  );

  // ---- the user ---------------------------------------------------------------------------------------------------
  view.addEventListener("click", (event) => {
    const token = event.target.dataset?.token;
    if (token !== undefined) select(Number(token), false);
  });
  $("colour").addEventListener("change", (event) => changeColour(event.target.value));
  $("layer").addEventListener("change", (event) => changeLayer(Number(event.target.value)));
  $("statistic").addEventListener("change", series);
  $("slot-near").addEventListener("change", slots);
  $("slot-map").addEventListener("click", (event) => {
    const range = slotRange(), left = MAP_LEFT, width = $("slot-map").clientWidth;
    const place = (event.offsetX - left) / (width - left);
    if (0 <= place && place < 1) select(range.start + Math.floor(place * (range.end - range.start)));
  });
  $("theme").addEventListener("click", changeTheme);
  $("help").addEventListener("click", () => $("keys").showModal());
  window.addEventListener("resize", () => trace && charts());
  document.addEventListener("keydown", (event) => {
    const isTyping = event.target.matches("input:not([type=checkbox]), textarea, select");
    if (isTyping || $("keys").open || event.ctrlKey || event.metaKey || event.altKey) return;
    const keys = {
      ArrowRight: () => select(Math.min(trace.tokens.length - 1, selected + 1)),
      ArrowLeft: () => select(Math.max(0, selected - 1)),
      l: () => changeLayer(layer + 1),
      L: () => changeLayer(layer - 1),
      Enter: () => {
        const entry = selected >= 0 ? entriesOf(selected).find((each) => each.token >= 0) : null;
        if (entry) select(entry.token);
      },
      Escape: () => select(-1),
      c: () => {
        const names = Array.from($("colour").options, (option) => option.value);
        changeColour(names[(names.indexOf(colour) + 1) % names.length]);
      },
      t: changeTheme,
      "?": () => $("keys").showModal(),
    };
    const presses = event.key === "Enter" && event.target.matches("button");
    if (!(event.key in keys) || (!trace && !["t", "?"].includes(event.key)) || presses) return;
    event.preventDefault();
    keys[event.key]();
  });

  document.documentElement.dataset.theme = window.matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  const embedded = JSON.parse($("trace").textContent);
  if (embedded) show(embedded);
  else {
    $("live").hidden = false;
    $("session").value = new URLSearchParams(window.location.search).get("session") ?? "";
    $("summary").textContent = "Give a text, which the model of this server reads.";
    detail();
    document.body.dataset.ready = "true";
  }
})();
