// What Python gives comes in `props` and is shown by `show`; what the user does goes out by
// `trigger`, and the drawn box, in pixels of the original picture, as `props.value`.
const at = name => element.querySelector(name);
const card = at('.card'), picture = at('.picture'), image = at('.shown'), drawn = at('.drawn');
const slider = at('.threshold input'), fields = [...element.querySelectorAll('.region input')];
const links = linkUp(card);
const size = () => [props.picture.width, props.picture.height];

const make = (tag, name, text) => {
  const made = document.createElement(tag);
  if (name) made.className = name;
  if (text !== undefined) made.textContent = text;
  return made;
};
const percent = share => `${Math.round(100 * share)}%`;

const show = {
  examples() {
    at('.examples').replaceChildren(...(props.examples ?? []).map((example, index) => {
      const button = make('button'), thumbnail = make('img');
      button.type = 'button';
      button.title = example.name;
      thumbnail.src = example.uri;
      thumbnail.alt = example.name;
      button.append(thumbnail);
      button.addEventListener('click', () => trigger('pick', { index }));
      return button;
    }));
  },
  picture() {
    const opened = props.picture;
    image.hidden = !opened;
    if (!opened) return;
    image.src = opened.uri;
    image.alt = opened.name;
    // As large as it fits, also where the picture is small, so that boxes can be drawn on it.
    const ratio = opened.width / opened.height;
    picture.style.width = `min(100%, ${40 * ratio}rem, ${58 * ratio}vh)`;
    image.style.aspectRatio = `${opened.width} / ${opened.height}`;
    for (const [index, button] of [...at('.examples').children].entries()) {
      button.setAttribute('aria-pressed', String(index === opened.example));
    }
  },
  value() {
    const corners = Array.isArray(props.value) ? props.value : null;
    fields.forEach((field, index) => {
      if (field !== document.activeElement) field.value = corners ? corners[index] : '';
    });
    drawn.hidden = !corners || !props.picture;
    if (drawn.hidden) return;
    const [width, height] = size();
    const [x0, y0, x1, y1] = corners;
    drawn.style.cssText = `left:${100 * x0 / width}%;top:${100 * y0 / height}%;` +
      `width:${100 * (x1 - x0) / width}%;height:${100 * (y1 - y0) / height}%`;
  },
  drawing() {
    card.classList.toggle('drawing', Boolean(props.drawing));
    at('.region').hidden = !props.drawing;
    if (!props.drawing) drawn.hidden = true; else show.value();
  },
  answer() {
    const answer = props.answer;
    at('.boxes').innerHTML = answer.boxes;
    at('.caption').innerHTML = answer.caption;
    at('.note').textContent = answer.note;
    at('.note').hidden = !answer.note;
    at('.rows').replaceChildren(...answer.rows.map(row => {
      const item = make('li'), button = make('button');
      button.type = 'button';
      button.dataset.links = row.link;
      button.style.cssText = row.paint;
      button.setAttribute('aria-pressed', 'false');
      if (row.score !== null) item.dataset.score = row.score;
      button.append(make('span', 'name', row.words), make('span', 'pixels', row.pixels),
        make('span', 'score', row.score === null ? '' : percent(row.score)));
      item.append(button);
      return item;
    }));
    at('.tools').hidden = !answer.caption;
    at('.threshold').hidden = !answer.rows.some(row => row.score !== null);
    sift();
    links.refresh();
  },
  error() {
    at('.alert').textContent = props.error;
    at('.alert').hidden = !props.error;
  },
  busy() {
    card.classList.toggle('busy', Boolean(props.busy));
    at('.caption').setAttribute('aria-busy', String(Boolean(props.busy)));
  },
  files() {
    for (const button of at('.files').children) button.disabled = !props.files;
  },
  log() {
    const entries = props.log ?? [];
    at('.log').hidden = !entries.length;
    at('.log ol').replaceChildren(...entries.map(entry => {
      const item = make('li');
      item.append(make('strong', '', entry.task), make('span', 'how', ` · ${entry.settings}`),
        make('code', 'read', entry.prompt), make('code', 'wrote', entry.markup));
      return item;
    }));
  },
  saved() {
    if (props.saved) save(`${props.files.stem}-boxes.jpg`, props.saved.uri);
  },
};

// Boxes that score below the threshold are hidden, with the colour of phrases that have no other.
const sift = () => {
  const least = Number(slider.value), shown = new Set();
  at('.threshold output').textContent = percent(least);
  for (const box of element.querySelectorAll('.box')) {
    box.hidden = Number(box.dataset.score ?? 1) < least;
    if (!box.hidden) shown.add(box.dataset.links);
  }
  for (const row of at('.rows').children) row.hidden = Number(row.dataset.score ?? 1) < least;
  for (const phrase of element.querySelectorAll('.phrase')) {
    phrase.classList.toggle('faint', !shown.has(phrase.dataset.links.split(' ')[0]));
  }
  links.refresh();
};
slider.addEventListener('input', sift);

const save = (name, url) => {
  const link = make('a');
  link.href = url;
  link.download = name;
  link.click();
};
at('.files').addEventListener('click', event => {
  const kind = event.target.dataset.file;
  if (!kind || !props.files) return;
  if (kind === 'picture') {
    trigger('draw', { threshold: Number(slider.value) });
    return;
  }
  const type = kind === 'json' ? 'application/json' : 'text/plain';
  const url = URL.createObjectURL(new Blob([props.files[kind]], { type }));
  save(props.files.stem + (kind === 'json' ? '.json' : '.txt'), url);
  setTimeout(() => URL.revokeObjectURL(url), 10000);
});

const keepBox = corners => { props.value = corners; show.value(); };
at('.clear').addEventListener('click', () => { keepBox(null); });
for (const field of fields) {
  field.addEventListener('input', () => {
    const corners = fields.map(each => each.valueAsNumber);
    if (corners.every(Number.isFinite)) keepBox(corners);
  });
}

let start = null;
const place = event => {
  const frame = image.getBoundingClientRect();
  const inside = (value, most) => Math.min(Math.max(value, 0), 1) * most;
  const [width, height] = size();
  return [inside((event.clientX - frame.left) / frame.width, width),
    inside((event.clientY - frame.top) / frame.height, height)];
};
const spanned = (one, other) => [Math.min(one[0], other[0]), Math.min(one[1], other[1]),
  Math.max(one[0], other[0]), Math.max(one[1], other[1])].map(x => Math.round(10 * x) / 10);
picture.addEventListener('pointerdown', event => {
  if (!props.drawing || !props.picture || event.button) return;
  start = { x: event.clientX, y: event.clientY, place: place(event), moved: false };
});
picture.addEventListener('pointermove', event => {
  if (!start) return;
  const far = Math.abs(event.clientX - start.x) + Math.abs(event.clientY - start.y);
  if (!start.moved && far < 5) return;
  if (!start.moved) picture.setPointerCapture(event.pointerId);
  start.moved = true;
  keepBox(spanned(start.place, place(event)));
});
picture.addEventListener('pointerup', () => { start = null; });
picture.addEventListener('pointercancel', () => { start = null; });

// A dropped or pasted picture goes the way of the button that opens one.
const open = file => {
  const input = document.querySelector('#k2-open')?.parentElement.querySelector('[type=file]');
  if (!file || !input) return;
  const files = new DataTransfer();
  files.items.add(file);
  input.files = files.files;
  input.dispatchEvent(new Event('change', { bubbles: true }));
};
const easel = at('.easel');
easel.addEventListener('dragover', event => {
  event.preventDefault();
  easel.classList.add('over');
});
easel.addEventListener('dragleave', () => easel.classList.remove('over'));
easel.addEventListener('drop', event => {
  event.preventDefault();
  easel.classList.remove('over');
  open(event.dataTransfer.files[0]);
});
document.addEventListener('paste', event => open(event.clipboardData?.files[0]));

for (const name of Object.keys(show)) {
  show[name]();
  watch(name, show[name]);
}
