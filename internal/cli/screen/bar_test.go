package screen

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/vbauerster/mpb/v8/decor"

	"github.com/compute-daemons/compute-daemons/internal/datamovement/client"
)

func TestSummed(t *testing.T) {
	early, late := time.Unix(1, 0), time.Unix(2, 0)
	running := client.Movement{ID: "r", State: client.Running, Percent: percent(50), ElapsedSeconds: 3, Rate: "1 GiB/s", LastMessage: "r", LastMessageTime: &early}
	newest := client.Movement{ID: "n", State: client.Running, Percent: percent(10), ElapsedSeconds: 75, LastMessage: "n", LastMessageTime: &late}
	pending := client.Movement{ID: "p", State: client.Pending}
	good := client.Movement{ID: "g", State: client.Completed, Result: client.Success, ElapsedSeconds: 4}
	stopped := client.Movement{ID: "c", State: client.Completed, Result: client.Cancelled, Percent: percent(20)}
	strange := client.Movement{ID: "s", State: client.Running, Percent: percent(2000)}
	for name, tt := range map[string]struct {
		all        []client.Movement
		head, tail string
	}{
		"nothing":   {nil, "asking ", " "},
		"pending":   {[]client.Movement{pending}, "pending         ", " "},
		"running":   {[]client.Movement{running}, "running     50% ", " 4.0s  1 GiB/s  3s left"},
		"long":      {[]client.Movement{newest}, "running     10% ", " 1m16s  11m15s left"},
		"success":   {[]client.Movement{good}, "success    100% ", " 4.0s"},
		"cancelled": {[]client.Movement{stopped}, "cancelled   20% ", " "},
		"strange":   {[]client.Movement{strange}, "running    100% ", " "},
		"two":       {[]client.Movement{good, running}, "1 of 2 ended  75% ", " 4.0s  1 GiB/s  3s left"},
		"newest":    {[]client.Movement{running, newest, good, pending}, "1 of 4 ended  40% ", " 1m16s  11m15s left"},
	} {
		s := summed(tt.all, early)
		// One second after it came, the clock shows one second more.
		if head, tail := s.head(), s.tail(early.Add(time.Second)); head != tt.head || tail != tt.tail {
			t.Errorf("%s: %q %q, want %q %q", name, head, tail, tt.head, tt.tail)
		}
	}
}

func TestMessageFits(t *testing.T) {
	b := new(bar)
	for _, tt := range []struct {
		text  string
		width int
		want  string
	}{
		{"short", 80, "short\n"},
		{"exactly", 8, "exactly\n"},
		{"exactly!", 8, "exactl…\n"},
		{"\x1b[2Jevil", 80, "\\x1b[2Jevil\n"},
		{"any", 0, "…\n"},
		{"漢字漢字", 8, "漢字漢…\n"},
		{"", 10, "\n"},
	} {
		b.state.Store(&shown{newest: client.Movement{LastMessage: tt.text}})
		var out bytes.Buffer
		if err := b.message(&out, decor.Statistics{AvailableWidth: tt.width}); err != nil || out.String() != tt.want {
			t.Errorf("%q in %d columns: %q %v", tt.text, tt.width, out.String(), err)
		}
		if strings.Contains(out.String(), "\x1b") {
			t.Errorf("%q", out.String())
		}
	}
}
