package screen

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/vbauerster/mpb/v8/decor"

	"github.com/compute-daemons/compute-daemons/internal/transfer"
)

func TestSummed(t *testing.T) {
	early, late := time.Unix(1, 0), time.Unix(2, 0)
	running := transfer.Movement{ID: "r", State: transfer.Running, Percent: percent(50), ElapsedSeconds: 3, Rate: "1 GiB/s", LastMessage: "r", LastMessageTime: &early}
	newest := transfer.Movement{ID: "n", State: transfer.Running, Percent: percent(10), ElapsedSeconds: 75, LastMessage: "n", LastMessageTime: &late}
	pending := transfer.Movement{ID: "p", State: transfer.Pending}
	good := transfer.Movement{ID: "g", State: transfer.Completed, Result: transfer.Success, ElapsedSeconds: 4}
	stopped := transfer.Movement{ID: "c", State: transfer.Completed, Result: transfer.Cancelled, Percent: percent(20)}
	strange := transfer.Movement{ID: "s", State: transfer.Running, Percent: percent(2000)}
	for name, tt := range map[string]struct {
		all        []transfer.Movement
		head, tail string
	}{
		"nothing":   {nil, "asking ", " "},
		"pending":   {[]transfer.Movement{pending}, "pending         ", " "},
		"running":   {[]transfer.Movement{running}, "running     50% ", " 4.0s  1 GiB/s  3s left"},
		"long":      {[]transfer.Movement{newest}, "running     10% ", " 1m16s  11m15s left"},
		"success":   {[]transfer.Movement{good}, "success    100% ", " 4.0s"},
		"cancelled": {[]transfer.Movement{stopped}, "cancelled   20% ", " "},
		"strange":   {[]transfer.Movement{strange}, "running    100% ", " "},
		"two":       {[]transfer.Movement{good, running}, "1 of 2 ended  75% ", " 4.0s  1 GiB/s  3s left"},
		"newest":    {[]transfer.Movement{running, newest, good, pending}, "1 of 4 ended  40% ", " 1m16s  11m15s left"},
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
		b.state.Store(&shown{newest: transfer.Movement{LastMessage: tt.text}})
		var out bytes.Buffer
		if err := b.message(&out, decor.Statistics{AvailableWidth: tt.width}); err != nil || out.String() != tt.want {
			t.Errorf("%q in %d columns: %q %v", tt.text, tt.width, out.String(), err)
		}
		if strings.Contains(out.String(), "\x1b") {
			t.Errorf("%q", out.String())
		}
	}
}
