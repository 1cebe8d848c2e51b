"use strict";
const $ = (id) => document.getElementById(id);
function isTrue(word) { return word === "true"; }
const FINISHED = ["succeeded", "failed", "cancelled"];
const OPTIONS = { seed: Number, num_inference_steps: Number, guidance_scale: Number,
  alignment: String, face_optimization: String, person: String, reference_person: String,
  fps: String, engine: String, mode: String, no_face: isTrue, audio: isTrue };
let job = null;

function headers(more = {}) {
  const key = $("key").value.trim();
  return key ? { ...more, Authorization: `Bearer ${key}` } : more;
}

function preview(input, drop) {
  const file = input.files[0];
  const view = drop.querySelector(".preview");
  if (view.src) URL.revokeObjectURL(view.src);
  view.hidden = !file;
  drop.querySelector(".hint").hidden = Boolean(file);
  if (file) {
    view.src = URL.createObjectURL(file);
    if (view.play) view.play().catch(() => {});
  }
}

for (const kind of ["picture", "video"]) {
  const drop = $(`drop-${kind}`), input = $(kind);
  input.addEventListener("change", () => preview(input, drop));
  drop.addEventListener("dragover", (event) => { event.preventDefault(); drop.classList.add("over"); });
  drop.addEventListener("dragleave", () => drop.classList.remove("over"));
  drop.addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    if (event.dataTransfer.files.length) { input.files = event.dataTransfer.files; preview(input, drop); }
  });
}

function showProblem(title, detail, fix) {
  const box = $("problem");
  box.replaceChildren();
  const strong = document.createElement("strong");
  strong.textContent = title;
  const text = document.createElement("p");
  text.textContent = [detail, fix].filter(Boolean).join(" ");
  box.append(strong, text);
  box.hidden = false;
}

async function fail(response) {
  let problem = {};
  try { problem = await response.json(); } catch { /* not a problem document */ }
  showProblem(problem.title || `Error ${response.status}`, problem.detail, problem.fix);
}

function show(state, detail, share) {
  $("progress").hidden = false;
  $("state").textContent = state;
  $("detail").textContent = detail || "";
  if (share === null) $("bar").removeAttribute("value"); else $("bar").value = share;
}

function showEvent(kind, data) {
  const similarity = data.identity_similarity;
  const face = typeof similarity === "number" ? `identity similarity ${similarity.toFixed(3)}` : "";
  if (kind === "queue") show("Waiting", `place ${data.queue_place} in the queue`, null);
  else if (kind === "queued") show("Waiting", "", null);
  else if (kind === "preparing") show("Preparing", "reading picture, video and pose", null);
  else if (kind === "retry") show("Waiting again", data.reason, null);
  else if (kind === "cancel_requested") show("Stopping", "", null);
  else if (kind === "running" || kind === "progress")
    show("Animating", [`step ${data.step} of ${data.num_steps}`, face].filter(Boolean).join(" · "),
      data.num_steps ? data.step / data.num_steps : null);
  else if (kind === "failed") { $("progress").hidden = true; showProblem("The job failed", data.message, data.fix); }
  else if (kind === "cancelled") show("Cancelled", "", 0);
  else if (kind === "succeeded") show("Done", face, 1);
}

async function follow(path) {
  let last = 0, ended = false;
  while (!ended) {
    try {
      const response = await fetch(`${path}/events`, { headers: headers(last ? { "Last-Event-ID": String(last) } : {}) });
      if (!response.ok) { await fail(response); return null; }
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      let buffer = "";
      for (;;) {
        const { value, done } = await reader.read();
        if (done) break;
        buffer += value;
        const blocks = buffer.split("\n\n");
        buffer = blocks.pop();
        for (const block of blocks) {
          const fields = {};
          for (const line of block.split("\n")) {
            const colon = line.indexOf(":");
            if (colon > 0) fields[line.slice(0, colon)] = line.slice(colon + 1).trimStart();
          }
          if (fields.id) last = Number(fields.id);
          if (fields.data) showEvent(fields.event, JSON.parse(fields.data));
          if (FINISHED.includes(fields.event)) { ended = true; }
        }
      }
    } catch { /* the connection broke: the job goes on, and so do we */ }
    if (!ended) await new Promise((resolve) => setTimeout(resolve, 1000));
  }
  return (await fetch(path, { headers: headers() })).json();
}

async function showResult(path, status) {
  const response = await fetch(`${path}/content`, { headers: headers() });
  if (!response.ok) { await fail(response); return; }
  const url = URL.createObjectURL(await response.blob());
  $("video-result").src = url;
  $("download").href = url;
  $("download").download = `animaray-${status.id}.mp4`;
  const result = status.result;
  $("facts").textContent = `${result.width_px} × ${result.height_px}, ${result.num_frames} frames, `
    + `seed ${status.options.seed}` + result.warnings.map((text) => ` · ${text}`).join("");
  $("result").hidden = false;
}

$("form").addEventListener("submit", async (event) => {
  event.preventDefault();
  $("problem").hidden = $("result").hidden = true;
  const options = {};
  for (const [name, read] of Object.entries(OPTIONS)) if ($(name).value !== "") options[name] = read($(name).value);
  const form = new FormData();
  form.append("reference_image", $("picture").files[0]);
  form.append("driving_video", $("video").files[0]);
  form.append("options", JSON.stringify(options));
  $("start").disabled = true;
  show("Uploading", "", null);
  try {
    const response = await fetch("/v1/animations", { method: "POST", body: form,
      headers: headers({ "Idempotency-Key": crypto.randomUUID ? crypto.randomUUID() : String(Math.random()) }) });
    if (!response.ok) { $("progress").hidden = true; await fail(response); return; }
    job = (await response.json()).links.self;
    $("cancel").hidden = false;
    const status = await follow(job);
    if (status && status.state === "succeeded") await showResult(job, status);
  } catch (error) {
    $("progress").hidden = true;
    showProblem("The service cannot be reached", String(error));
  } finally {
    job = null;
    $("start").disabled = false;
    $("cancel").hidden = true;
  }
});

$("cancel").addEventListener("click", () => { if (job) fetch(job, { method: "DELETE", headers: headers() }); });
