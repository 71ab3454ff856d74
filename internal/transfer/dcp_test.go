package transfer

import "testing"

func TestFromLastMessage(t *testing.T) {
	for _, tt := range []struct{ line, data, rate, left string }{
		{"Copied 1.000 GiB (50%) in 3.139 secs (326.217 MiB/s) 3 secs left ...", "1.000 GiB", "326.217 MiB/s", "3 secs"},
		{"Copied 0.000 B (0%) in 1.001 secs (0.000 B/s)", "0.000 B", "0.000 B/s", ""},
		{"Copied 2.000 GiB (100%) in 6.755 secs (303.182 MiB/s) done", "2.000 GiB", "303.182 MiB/s", ""},
		{"Copied 7 files", "", "", ""},
		{"sent 12 bytes (5.1 kB/s)", "", "", ""},
		{"", "", "", ""},
		{"[2025-04-01] Copied 1.0 GiB (1%) in 1 secs (1.0 GiB/s) 7 mins left", "", "1.0 GiB/s", "7 mins"},
	} {
		m := Movement{LastMessage: tt.line}
		m.fromLastMessage()
		if m.Data != tt.data || m.Rate != tt.rate || m.Left != tt.left {
			t.Errorf("%q: %q %q %q, want %+v", tt.line, m.Data, m.Rate, m.Left, tt)
		}
	}
	// What the daemon says itself counts more.
	m := Movement{LastMessage: "Copied 1.000 GiB (50%) in 3.139 secs (326.217 MiB/s) 3 secs left ...", Rate: "9 GiB/s"}
	if m.fromLastMessage(); m.Rate != "9 GiB/s" || m.Data != "1.000 GiB" {
		t.Errorf("%+v", m)
	}
}
