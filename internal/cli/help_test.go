package cli

import (
	"testing"
	"time"

	"github.com/spf13/pflag"
)

func TestDescribe(t *testing.T) {
	f := pflag.NewFlagSet("", pflag.ContinueOnError)
	f.SortFlags = false
	f.StringP("output", "o", "text", "`FORMAT` of the answer")
	f.Bool("wait", false, "wait")
	f.Duration("timeout", 0, "no longer than `DURATION`")
	f.StringArray("daemon", nil, "`NAME` of it")
	f.Int("parallel", 32, "`N` at once")
	want := []Flag{
		{"output", "o", "FORMAT", "FORMAT of the answer", "text"}, {"wait", "", "", "wait", ""},
		{"timeout", "", "DURATION", "no longer than DURATION", ""}, {"daemon", "", "NAME", "NAME of it", ""}, {"parallel", "", "N", "N at once", "32"},
	}
	got := describe(f)
	if len(got) != len(want) {
		t.Fatalf("%+v", got)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("%+v, want %+v", got[i], want[i])
		}
	}
}

func TestBrief(t *testing.T) {
	for given, want := range map[time.Duration]string{24 * time.Hour: "24h", time.Minute: "1m", 90 * time.Minute: "1h30m", 10 * time.Second: "10s", 61 * time.Second: "1m1s", 0: "0s"} {
		f := pflag.NewFlagSet("", pflag.ContinueOnError)
		f.Duration("timeout", given, "")
		if got := brief(f).Lookup("timeout").DefValue; got != want {
			t.Errorf("%s: %s, want %s", given, got, want)
		}
	}
}
