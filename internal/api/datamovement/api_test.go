package datamovement

import (
	"os/exec"
	"strings"
	"testing"
	"time"
)

func TestTimeText(t *testing.T) {
	cdt := time.FixedZone("CDT", -5*3600)
	at := func(nsec int) time.Time { return time.Date(2025, 4, 1, 16, 46, 36, nsec, time.UTC) }
	for _, c := range []struct {
		in   time.Time
		want string
	}{
		{time.Time{}, ""},
		{at(535519000), "2025-04-01 11:46:36.535519 -0500 CDT"},
		{at(500000000), "2025-04-01 11:46:36.5 -0500 CDT"},
		{at(0), "2025-04-01 11:46:36 -0500 CDT"},
		{at(0).In(time.FixedZone("JST", 9*3600)), "2025-04-01 11:46:36 -0500 CDT"},
		{time.Date(2025, 1, 1, 2, 0, 0, 0, time.UTC), "2024-12-31 21:00:00 -0500 CDT"},
	} {
		if got := timeText(c.in, cdt); got != c.want {
			t.Errorf("timeText(%v) = %q, want %q", c.in, got, c.want)
		}
	}
}

// In UTC, Go also writes the name of the zone; clients parse three parts after the date.
func TestTimeTextUTC(t *testing.T) {
	if got, want := timeText(time.Unix(1, 0), time.UTC), "1970-01-01 00:00:01 +0000 UTC"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestTimeTextOfNow(t *testing.T) {
	now := time.Now()
	got := TimeText(now)
	if got == "" || strings.Contains(got, "m=") {
		t.Errorf("%q contains the monotonic clock reading", got)
	}
	if want := now.Local().Format("2006-01-02 15:04:05.999999999 -0700 MST"); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestElapsedText(t *testing.T) {
	for in, want := range map[time.Duration]string{
		0:                "",
		-time.Second:     "",
		time.Microsecond: "0s",
		time.Millisecond: "1ms",
		90*time.Second + 250*time.Millisecond + 999*time.Microsecond: "1m30.25s",
		3139 * time.Millisecond: "3.139s",
		25 * time.Hour:          "25h0m0s",
	} {
		if got := ElapsedText(in); got != want {
			t.Errorf("ElapsedText(%d) = %q, want %q", in, got, want)
		}
	}
}

// Nodes that only mount must not carry the cost of gRPC: clientmountd does not link it.
func TestNotInClientmountd(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), "go", "list", "-deps", "./cmd/clientmountd")
	cmd.Dir = "../../.."
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	if !strings.Contains(string(out), "/internal/api/dws\n") {
		t.Fatalf("this is not the list of clientmountd's packages:\n%s", out)
	}
	for pkg := range strings.Lines(string(out)) {
		pkg = strings.TrimSpace(pkg)
		if strings.HasPrefix(pkg, "google.golang.org/") || strings.HasPrefix(pkg, "github.com/bufbuild/") ||
			strings.Contains(pkg, "/internal/api/datamovement") || strings.HasSuffix(pkg, "/internal/api/lus") {
			t.Errorf("clientmountd links %s", pkg)
		}
	}
}
