package page

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/e2e/require"
	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
	"github.com/compute-daemons/compute-daemons/internal/mountstate"
	"github.com/compute-daemons/compute-daemons/internal/timeline"
	"github.com/compute-daemons/compute-daemons/internal/timeline/sample"
)

// browser is a headless Chromium that shows a page. The test controls it with the DevTools protocol
// over two pipes: JSON messages, each with a zero byte at its end.
type browser struct {
	t        *testing.T
	requests *os.File
	answers  *bufio.Reader
	session  string
	last     int
}

// open starts Chromium and waits until the charts of the page are there.
func open(t *testing.T, page string) *browser {
	t.Helper()
	require.Tool(t, "chromium")
	dir := t.TempDir()
	path := filepath.Join(dir, "page.html")
	if err := os.WriteFile(path, []byte(page), 0o600); err != nil {
		t.Fatal(err)
	}
	in, requests, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	answers, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("chromium", append(options(filepath.Join(dir, "profile")), "--remote-debugging-pipe", "about:blank")...)
	cmd.ExtraFiles = []*os.File{in, out} // 3 and 4
	var messages bytes.Buffer
	cmd.Stderr, cmd.WaitDelay = &messages, 5*time.Second
	err = cmd.Start()
	in.Close()
	out.Close()
	if err != nil {
		t.Fatal(err)
	}
	if err := answers.SetReadDeadline(time.Now().Add(3 * time.Minute)); err != nil {
		t.Fatal(err)
	}
	b := &browser{t: t, requests: requests, answers: bufio.NewReader(answers)}
	t.Cleanup(func() {
		// Chromium exits when its pipe is closed; it must not write into a removed directory.
		requests.Close()
		ended := time.AfterFunc(30*time.Second, func() { _ = cmd.Process.Kill() })
		_ = cmd.Wait()
		ended.Stop()
		answers.Close()
		if t.Failed() {
			t.Logf("chromium: %.500s", messages.String())
		}
	})
	target := b.call("Target.createTarget", map[string]any{"url": "about:blank"})
	b.session, _ = b.call("Target.attachToTarget", map[string]any{"targetId": target["targetId"], "flatten": true})["sessionId"].(string)
	b.call("Page.navigate", map[string]any{"url": "file://" + path})
	wait.Within(t, 2*time.Minute, "the charts", func() bool {
		return evaluate[bool](b, `location.protocol === "file:" && "drawn" in (document.documentElement?.dataset ?? {})`)
	})
	return b
}

// call sends a command and returns its result. It discards events.
func (b *browser) call(method string, params map[string]any) map[string]any {
	b.t.Helper()
	b.last++
	message := map[string]any{"id": b.last, "method": method, "params": params}
	if b.session != "" {
		message["sessionId"] = b.session
	}
	data, err := json.Marshal(message)
	if err != nil {
		b.t.Fatal(err)
	}
	if _, err := b.requests.Write(append(data, 0)); err != nil {
		b.t.Fatal(err)
	}
	for {
		data, err := b.answers.ReadBytes(0)
		if err != nil {
			b.t.Fatalf("%s: %v", method, err)
		}
		var answer struct {
			ID     int
			Result map[string]any
			Error  *struct{ Message string }
		}
		if err := json.Unmarshal(bytes.TrimSuffix(data, []byte{0}), &answer); err != nil {
			b.t.Fatal(err)
		}
		switch {
		case answer.ID != b.last:
		case answer.Error != nil:
			b.t.Fatalf("%s: %s", method, answer.Error.Message)
		default:
			return answer.Result
		}
	}
}

// evaluate returns the value of an expression in the page.
func evaluate[T any](b *browser, expression string) (value T) {
	b.t.Helper()
	answer := b.call("Runtime.evaluate", map[string]any{"expression": expression, "returnByValue": true})
	if wrong, failed := answer["exceptionDetails"]; failed {
		b.t.Fatalf("%s: %v", expression, wrong)
	}
	data, err := json.Marshal(answer["result"].(map[string]any)["value"])
	if err == nil {
		err = json.Unmarshal(data, &value)
	}
	if err != nil {
		b.t.Fatalf("%s: %v", expression, err)
	}
	return value
}

// mouse moves the mouse to the middle of an element and returns its position. With press, it clicks.
func (b *browser) mouse(element string, press bool) {
	b.t.Helper()
	at := evaluate[[]float64](b, `(() => { const e = `+element+`; e.scrollIntoView({ block: "center", behavior: "instant" });
		const r = e.getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2]; })()`)
	types := []string{"mouseMoved"}
	if press {
		types = append(types, "mousePressed", "mouseReleased")
	}
	for _, kind := range types {
		b.call("Input.dispatchMouseEvent", map[string]any{"type": kind, "x": at[0], "y": at[1], "button": "left", "clickCount": 1})
	}
}

// button returns the expression for the button with this text.
func button(parent, text string) string {
	return fmt.Sprintf(`[...document.querySelectorAll(%q)].find((e) => e.textContent === %q)`, parent+" button", text)
}

// lanes returns the names of the lanes, and the values at their right.
func (b *browser) lanes() (names, values []string) {
	b.t.Helper()
	names = evaluate[[]string](b, `[...document.querySelectorAll("#lanes text.name")].map((e) => e.textContent)`)
	values = evaluate[[]string](b, `[...document.querySelectorAll("#lanes text.end:not(.name)")].map((e) => e.textContent)`)
	return names, values
}

// sorted checks that lanes are those of the slowest nodes by a step after the first ones, the slowest
// first, each with its time. The page has whole milliseconds, so nodes with about the same time may be
// in any order.
func sorted(t *testing.T, nodes []*mountstate.Timeline, k timeline.Key, first int, names, values []string) {
	t.Helper()
	times, all := map[string]float64{}, []float64{}
	for _, n := range nodes {
		seconds := timeline.Summarize(n).Seconds[k]
		times[n.Node], all = seconds, append(all, seconds)
	}
	slices.SortFunc(all, func(a, b float64) int { return cmp.Compare(b, a) })
	if len(names) != 50 || len(values) != 50 {
		t.Fatalf("%d lanes with %d times", len(names), len(values))
	}
	const rounding = 0.002
	for i, name := range names {
		shown, err := time.ParseDuration(values[i])
		actual, known := times[name]
		delete(times, name)
		switch {
		case err != nil || !known:
			t.Errorf("lane %d is %q with %q", i, name, values[i])
		case math.Abs(actual-all[first+i]) > rounding:
			t.Errorf("%v: lane %d is %s with %.3f s, want one with %.3f s", k, i, name, actual, all[first+i])
		case math.Abs(shown.Seconds()-actual) > rounding+actual/100:
			t.Errorf("%v: %s is shown with %v, want %.3f s", k, name, shown, actual)
		}
	}
}

// A click on a step sorts all nodes by it, a click on a phase shows its steps.
func TestBrowserSorts(t *testing.T) {
	nodes := sample.Fleet(300)
	b := open(t, write(t, contents(nodes)))
	check := func(k timeline.Key, title string) {
		t.Helper()
		names, values := b.lanes()
		sorted(t, nodes, k, 0, names, values)
		if note := evaluate[string](b, `document.getElementById("overview-note").textContent`); !strings.HasPrefix(note, "Sorted by "+title+",") {
			t.Errorf("%q", note)
		}
		if sorted := evaluate[[]string](b, `[...document.querySelectorAll("#steps tr.sorted button[aria-pressed=true]")].map((e) => e.textContent)`); !slices.Equal(sorted, []string{title}) {
			t.Errorf("%q are marked, want %s", sorted, title)
		}
	}
	check(timeline.Key{Phase: mountstate.PhaseMount}, "whole phase")
	b.mouse(button("#steps", "waitVG"), true)
	check(timeline.Key{Phase: mountstate.PhaseMount, Kind: mountstate.StepWait, Name: "waitVG"}, "waitVG")
	b.mouse(button("#steps", mountstate.NameWrite("status")), true)
	check(timeline.Key{Phase: mountstate.PhaseMount, Kind: mountstate.StepAPI, Name: mountstate.NameWrite("status")}, mountstate.NameWrite("status"))

	b.mouse(button("#phases", "unmount"), true)
	check(timeline.Key{Phase: mountstate.PhaseUnmount}, "whole phase")
	steps := evaluate[[]string](b, `[...document.querySelectorAll("#steps button")].map((e) => e.textContent)`)
	want := []string{"whole phase"}
	for _, step := range nodes[0].Lives[0].Steps {
		if step.Phase == mountstate.PhaseUnmount {
			want = append(want, step.Name)
		}
	}
	if !slices.Equal(steps, want) {
		t.Errorf("the steps of the unmount phase are %q, want %q", steps, want)
	}
	if pressed := evaluate[[]string](b, `[...document.querySelectorAll("#phases button[aria-pressed=true]")].map((e) => e.textContent)`); !slices.Equal(pressed, []string{"unmount"}) {
		t.Errorf("%q are marked", pressed)
	}
	b.mouse(button("#steps", "deactivate"), true)
	check(timeline.Key{Phase: mountstate.PhaseUnmount, Kind: mountstate.StepActivate, Name: "deactivate"}, "deactivate")
}

// The pager shows the next nodes, and the search field those with a part of a name.
func TestBrowserFinds(t *testing.T) {
	nodes := sample.Fleet(300)
	b := open(t, write(t, contents(nodes)))
	b.mouse(`document.getElementById("next")`, true)
	names, values := b.lanes()
	sorted(t, nodes, timeline.Key{Phase: mountstate.PhaseMount}, 50, names, values)
	b.mouse(`document.getElementById("find")`, true)
	b.call("Input.insertText", map[string]any{"text": "e-0011"})
	names, _ = b.lanes()
	if slices.Sort(names); len(names) != 10 || names[0] != "compute-00110" || names[9] != "compute-00119" {
		t.Errorf("%q", names)
	}
	if note := evaluate[string](b, `document.getElementById("lanes-note").textContent`); !strings.Contains(note, "10 nodes with “e-0011” in the name") {
		t.Errorf("%q", note)
	}
}

// Tooltips of a node and of a step show its name and times, and disappear.
func TestBrowserTooltips(t *testing.T) {
	nodes := sample.Fleet(100)
	b := open(t, write(t, contents(nodes)))
	tip := func() []string {
		return evaluate[[]string](b, `document.getElementById("tip").hidden ? [] : [...document.getElementById("tip").children].map((e) => e.textContent)`)
	}
	if lines := tip(); len(lines) > 0 {
		t.Errorf("at the start: %q", lines)
	}
	names, values := b.lanes()
	b.mouse(`document.querySelector("#overview svg")`, false)
	if lines := tip(); len(lines) < 3 || lines[0] == names[0] || !strings.HasPrefix(lines[1], "rank 4") || !strings.Contains(lines[1], " of 100, total ") {
		t.Errorf("in the middle of the overview: %q", lines)
	}
	// The longest step of the slowest node.
	longest := `[...document.querySelectorAll("#lanes rect[rx]")].filter((e) => Math.trunc((e.getAttribute("y") - 22) / 19) === 0).sort((a, b) => b.getAttribute("width") - a.getAttribute("width"))[0]`
	b.mouse(longest, false)
	lines := tip()
	if len(lines) < 4 || !strings.HasPrefix(lines[0], "waitVG: ") || lines[1] != "wait on "+names[0] || lines[2] != nodes[0].Lives[0].Steps[3].Path || !strings.HasPrefix(lines[3], "from ") {
		t.Errorf("%q, of %s with %s", lines, names[0], values[0])
	}
	b.mouse(`document.querySelector("h1")`, false)
	if lines := tip(); len(lines) > 0 {
		t.Errorf("after the mouse has left: %q", lines)
	}
	// A step with several tries has its error.
	b.mouse(`document.getElementById("find")`, true)
	b.call("Input.insertText", map[string]any{"text": "00043"})
	steps := `[...document.querySelectorAll("#lanes rect[rx]")]`
	found := false
	for i := range evaluate[int](b, steps+".length") {
		b.mouse(fmt.Sprintf("%s[%d]", steps, i), false)
		lines := tip()
		found = found || len(lines) == 5 && strings.HasPrefix(lines[0], "mount: ") && strings.HasSuffix(lines[3], ", 3 tries") && strings.Contains(lines[4], "wrong fs type")
	}
	if !found {
		t.Error("no tooltip has the error of the step with several tries")
	}
}

// In both colour schemes, texts have the contrast that WCAG 2 requires (4.5), and steps can be
// distinguished from the background.
func TestBrowserColours(t *testing.T) {
	b := open(t, write(t, contents(sample.Fleet(20))))
	const read = `(() => {
		const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
		const rgb = (c) => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = c; canvas.fillRect(0, 0, 1, 1); return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3); };
		const style = (e, p) => rgb(getComputedStyle(document.querySelector(e))[p]);
		return { page: [style("body", "backgroundColor")], card: [style("section", "backgroundColor")],
			texts: [style("body", "color"), style("#about", "color"), style("th", "color"), style("#lanes text.name", "fill"), style("#lanes text", "fill")],
			steps: [...document.querySelectorAll("#lanes rect[rx]")].map((e) => rgb(getComputedStyle(e).fill)) };
	})()`
	var pages []float64
	for _, scheme := range []string{"light", "dark"} {
		b.call("Emulation.setEmulatedMedia", map[string]any{"features": []map[string]string{{"name": "prefers-color-scheme", "value": scheme}}})
		c := evaluate[map[string][][]float64](b, read)
		pages = append(pages, luminance(c["page"][0]))
		for _, text := range c["texts"] {
			for _, ground := range []string{"page", "card"} {
				if r := contrast(text, c[ground][0]); r < 4.5 {
					t.Errorf("%s: text %v on %s %v has the contrast %.2f", scheme, text, ground, c[ground][0], r)
				}
			}
		}
		if len(c["steps"]) < 20*10 {
			t.Errorf("%s: %d steps", scheme, len(c["steps"]))
		}
		for _, step := range c["steps"] {
			if r := contrast(step, c["card"][0]); r < 1.5 {
				t.Errorf("%s: a step %v on %v has the contrast %.2f", scheme, step, c["card"][0], r)
				break
			}
		}
	}
	if pages[0] < 0.7 || pages[1] > 0.05 {
		t.Errorf("the backgrounds have the luminance %.2f", pages)
	}
}

// luminance is the relative luminance of a colour, and contrast the contrast ratio of two, as in
// WCAG 2.
func luminance(rgb []float64) float64 {
	linear := func(v float64) float64 {
		if v /= 255; v <= 0.04045 {
			return v / 12.92
		}
		return math.Pow((v+0.055)/1.055, 2.4)
	}
	return 0.2126*linear(rgb[0]) + 0.7152*linear(rgb[1]) + 0.0722*linear(rgb[2])
}

func contrast(a, b []float64) float64 {
	x, y := luminance(a)+0.05, luminance(b)+0.05
	return max(x, y) / min(x, y)
}
