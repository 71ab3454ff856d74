package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"testing"
)

const sumOfA = "h1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="

func info() *debug.BuildInfo {
	return &debug.BuildInfo{
		GoVersion: "go1.26.0",
		Main:      debug.Module{Path: "example.com/tool", Version: "(devel)"},
		Deps: []*debug.Module{
			{Path: "example.com/a", Version: "v1.0.0+incompatible"},
			{Path: "example.com/b", Version: "v2.0.0", Replace: &debug.Module{Path: "example.com/c", Version: "v3.0.0", Sum: sumOfA}},
		},
		Settings: []debug.BuildSetting{{Key: "CGO_ENABLED", Value: "0"}},
	}
}

func TestDocument(t *testing.T) {
	doc, err := document("tool", info(), map[string]string{"example.com/a v1.0.0+incompatible": sumOfA})
	if err != nil {
		t.Fatal(err)
	}
	var b bom
	if err := json.Unmarshal(doc, &b); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, c := range append([]component{b.Metadata.Component}, b.Components...) {
		line := c.Type + " " + c.Name + " " + c.PURL
		for _, h := range c.Hashes {
			line += " " + h.Algorithm + " " + h.Content[:6]
		}
		got = append(got, line)
	}
	want := []string{
		"application tool pkg:golang/example.com/tool",
		"library std pkg:golang/std@1.26.0",
		"library example.com/a pkg:golang/example.com/a@v1.0.0%2Bincompatible SHA-256 000102",
		"library example.com/c pkg:golang/example.com/c@v3.0.0 SHA-256 000102",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if b.Format != "CycloneDX" || b.Spec != "1.5" || b.Metadata.Properties[0] != (property{"go:build:CGO_ENABLED", "0"}) {
		t.Errorf("head %+v", b)
	}
	if _, err := document("tool", info(), nil); err == nil || !strings.Contains(err.Error(), "example.com/a v1.0.0") {
		t.Errorf("a module without a checksum: %v", err)
	}
}

// The test is a Go program itself.
func TestRun(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	bad := filepath.Join(t.TempDir(), "go.sum")
	if err := os.WriteFile(bad, []byte("a v1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		args   []string
		code   int
		stdout string
		stderr string
	}{
		"itself":     {[]string{self, "../../go.sum"}, 0, `"bomFormat": "CycloneDX"`, ""},
		"no program": {[]string{"main.go", "../../go.sum"}, 1, "", "sbom: "},
		"no sums":    {[]string{self, "no-such-file"}, 1, "", "no-such-file"},
		"bad sums":   {[]string{self, bad}, 1, "", `not a line of a go.sum: "a v1"`},
		"usage":      {nil, 2, "", "usage: sbom"},
	} {
		t.Run(name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			if code := run(test.args, &stdout, &stderr); code != test.code {
				t.Errorf("exit code %d, want %d", code, test.code)
			}
			if !strings.Contains(stdout.String(), test.stdout) || !strings.Contains(stderr.String(), test.stderr) ||
				(test.stderr == "") != (stderr.Len() == 0) {
				t.Errorf("stdout %.200s\nstderr %s", stdout.String(), stderr.String())
			}
		})
	}
}
