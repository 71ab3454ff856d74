package apiclient

import (
	"encoding/json"
	"testing"
)

func TestField(t *testing.T) {
	var object map[string]any
	const text = `{"metadata":{"labels":{"a.b/c":"d"}},"status":{"allReady":true,"none":null,"n":3,"mounts":[{"state":"mounted"},{"ready":false}],"env":{"0":"zero"}}}`
	if err := json.Unmarshal([]byte(text), &object); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"status.allReady":          "true",
		"status.n":                 "3",
		"status.none":              "null",
		"status.mounts.0.state":    "mounted",
		"status.mounts.1":          `{"ready":false}`,
		"status.env.0":             "zero",
		`metadata.labels.a\.b/c`:   "d",
		"status.mounts.2":          "-",
		"status.mounts.-1":         "-",
		"status.mounts.x":          "-",
		"status.allReady.deeper":   "-",
		"status.error":             "-",
		"metadata.labels.a.b/c":    "-",
		"":                         "-",
		"status..allReady":         "-",
		"status.mounts.0.state.no": "-",
	} {
		got, found := Field(object, path)
		if !found {
			got = "-"
		}
		if got != want {
			t.Errorf("%q: got %q, want %q", path, got, want)
		}
	}
}

func TestParseTarget(t *testing.T) {
	for name, test := range map[string]struct {
		resource, name string
		want           string
		fail           bool
	}{
		"namespaced":      {"clientmounts", "compute-01/a", "clientmounts compute-01/a", false},
		"cluster":         {"clusterroles", "a", "clusterroles a", false},
		"no namespace":    {"clientmounts", "/a", "", true},
		"no name":         {"clientmounts", "compute-01/", "", true},
		"too many":        {"clientmounts", "a/b/c", "", true},
		"nothing":         {"clientmounts", "", "", true},
		"no resource":     {"", "a", "", true},
		"a name with dot": {"clusterroles", "a.b", "clusterroles a.b", false},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := ParseTarget(test.resource, test.name)
			if (err != nil) != test.fail || !test.fail && got.String() != test.want {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
}
