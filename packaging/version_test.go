package packaging

import (
	"os/exec"
	"strings"
	"testing"
)

// Versions and releases in the order of rpm.
func TestVersion(t *testing.T) {
	for described, want := range map[string]string{
		"v1.2.3":                         "1.2.3 1",
		"v1.2.3-dirty":                   "1.2.3 1.dirty",
		"v1.2.3-rc1":                     "1.2.3~rc1 1",
		"v1.2.3-rc-1":                    "1.2.3~rc.1 1",
		"v1.2.3-rc1-4-g0123abc":          "1.2.3~rc1 1.4.g0123abc",
		"v1.2.3-5-g0123abc":              "1.2.3 1.5.g0123abc",
		"v1.2.3-5-g0123abc-dirty":        "1.2.3 1.5.g0123abc.dirty",
		"0123abc":                        "0.0.0 0.g0123abc",
		"0123abc-dirty":                  "0.0.0 0.g0123abc.dirty",
		"v0.0.0":                         "0.0.0 1",
		"v10.20.30-123-g0123456789abcde": "10.20.30 1.123.g0123456789abcde",
	} {
		out, err := exec.Command("./version.sh", described).CombinedOutput()
		if got := strings.TrimSpace(string(out)); err != nil || got != want {
			t.Errorf("%s: %q, %v, want %q", described, got, err, want)
		}
	}
}
