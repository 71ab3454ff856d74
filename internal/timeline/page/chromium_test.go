package page

import (
	"context"
	"image/color"
	"image/png"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/e2e/require"
	"github.com/compute-daemons/compute-daemons/internal/timeline/sample"
)

// options returns options of Chromium. It has no sandbox for root, and containers have a small
// /dev/shm.
func options(profile string) []string {
	return []string{"--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--user-data-dir=" + profile, "--window-size=1280,1900", "--hide-scrollbars"}
}

// chromium runs a headless Chromium on a page and returns its standard output.
func chromium(t *testing.T, page string, args ...string) string {
	t.Helper()
	require.Tool(t, "chromium")
	dir := t.TempDir()
	path := filepath.Join(dir, "page.html")
	if err := os.WriteFile(path, []byte(page), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	args = append(options(filepath.Join(dir, "profile")), args...)
	cmd := exec.CommandContext(ctx, "chromium", append(args, "file://"+path)...)
	var messages strings.Builder
	cmd.Stderr = &messages
	cmd.WaitDelay = 5 * time.Second
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("chromium: %v\n%s", err, messages.String())
	}
	return string(out)
}

// drawn returns the time in milliseconds from the start of loading a page until the charts are there.
func drawn(t *testing.T, dom string) int {
	t.Helper()
	m := regexp.MustCompile(`<html [^>]*data-drawn="(\d+)"`).FindStringSubmatch(dom)
	if m == nil {
		t.Fatalf("the script of the page did not finish:\n%.2000s", dom)
	}
	ms, _ := strconv.Atoi(m[1])
	return ms
}

// Chromium draws the page of 11,136 nodes in at most 2 s: a lane for each of the slowest 50, and all
// controls. A busy machine gets several tries.
func TestChromiumDraws(t *testing.T) {
	page := write(t, contents(sample.Fleet(11136)))
	const limit, tries = 2000, 6
	for try := 1; ; try++ {
		dom := chromium(t, page, "--dump-dom")
		ms := drawn(t, dom)
		t.Logf("drawn in %d ms", ms)
		if lanes := strings.Count(dom, `class="lane"`); lanes != 50 {
			t.Fatalf("%d lanes", lanes)
		}
		for _, want := range []string{"11,136 nodes with a timeline", ">waitVG</button>", "<td>compute-[11137-11140]</td>", `aria-label="Times of 11,136 nodes"`} {
			if !strings.Contains(dom, want) {
				t.Errorf("the page does not show %s", want)
			}
		}
		switch {
		case ms <= limit:
			return
		case try == tries:
			t.Fatalf("not drawn within %d ms in %d tries", limit, tries)
		}
	}
}

// No text of a node runs as a script or becomes an element, and the page still shows all nodes.
func TestChromiumIsNotOwned(t *testing.T) {
	dom := chromium(t, write(t, hostileContents()), "--dump-dom")
	drawn(t, dom)
	if strings.Contains(dom, "data-owned") || strings.Contains(dom, "<img") || strings.Count(dom, "<script") != 2 {
		t.Error("a text of a node became a part of the page")
	}
	if lanes := strings.Count(dom, `class="lane"`); lanes != 50 {
		t.Errorf("%d lanes", lanes)
	}
	if !strings.Contains(dom, `<td>&lt;!--&lt;script&gt;</td>`) {
		t.Error("the reason with markup is not shown as text")
	}
}

// The policy stops a script that is not the one of the page.
func TestChromiumPolicy(t *testing.T) {
	page := strings.Replace(write(t, contents(sample.Fleet(2))), "<header>", hostile[0]+"<header>", 1)
	dom := chromium(t, page, "--dump-dom")
	drawn(t, dom)
	if regexp.MustCompile(`<html [^>]*data-owned`).MatchString(dom) {
		t.Error("a foreign script has run")
	}
}

// The page has light and dark colours; the screenshots are for people.
func TestChromiumScreenshots(t *testing.T) {
	dir := t.TempDir()
	page := write(t, contents(sample.Fleet(300)))
	for name, scheme := range map[string]string{"light": "1", "dark": "0"} {
		path := filepath.Join(dir, name+".png")
		chromium(t, page, "--blink-settings=preferredColorScheme="+scheme, "--screenshot="+path)
		if level := brightness(t, path); (level < 64) != (name == "dark") {
			t.Errorf("%s: the background has the brightness %d", name, level)
		}
	}
}

// brightness returns the brightness of the first pixel of an image, from 0 to 255.
func brightness(t *testing.T, path string) uint8 {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	picture, err := png.Decode(f)
	if err != nil {
		t.Fatal(err)
	}
	return color.GrayModel.Convert(picture.At(0, 0)).(color.Gray).Y
}
