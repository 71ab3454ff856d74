package main

import (
	"bufio"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"runtime/debug"
	"strings"
)

// The parts of CycloneDX 1.5 that are used.
type bom struct {
	Format     string      `json:"bomFormat"`
	Spec       string      `json:"specVersion"`
	Version    int         `json:"version"`
	Metadata   metadata    `json:"metadata"`
	Components []component `json:"components"`
}

type metadata struct {
	Component  component  `json:"component"`
	Properties []property `json:"properties,omitempty"`
}

type component struct {
	Type     string    `json:"type"`
	Ref      string    `json:"bom-ref"`
	Name     string    `json:"name"`
	Version  string    `json:"version,omitempty"`
	PURL     string    `json:"purl"`
	Hashes   []hash    `json:"hashes,omitempty"`
	Licenses []license `json:"licenses,omitempty"`
}

type hash struct {
	Algorithm string `json:"alg"`
	Content   string `json:"content"`
}

type license struct {
	License struct {
		ID string `json:"id"`
	} `json:"license"`
}

type property struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// document is the program's CycloneDX document. Sums has the checksums of go.sum
// by "module version". A module without a checksum is an error: nobody could
// tell which source it stands for.
func document(name string, info *debug.BuildInfo, sums map[string]string) ([]byte, error) {
	own := module("application", &info.Main)
	own.Name = name
	own.Licenses = make([]license, 1)
	own.Licenses[0].License.ID = "Apache-2.0"
	b := bom{Format: "CycloneDX", Spec: "1.5", Version: 1, Metadata: metadata{Component: own}}
	for _, s := range info.Settings {
		b.Metadata.Properties = append(b.Metadata.Properties, property{"go:build:" + s.Key, s.Value})
	}
	release := strings.TrimPrefix(info.GoVersion, "go")
	b.Components = append(b.Components, component{
		Type: "library", Ref: "pkg:golang/std@" + release, Name: "std", Version: release, PURL: "pkg:golang/std@" + release,
	})
	for _, m := range info.Deps {
		if m.Replace != nil {
			m = m.Replace
		}
		c := module("library", m)
		sum := m.Sum
		if sum == "" {
			sum = sums[m.Path+" "+m.Version]
		}
		raw, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(sum, "h1:"))
		if err != nil || len(raw) == 0 {
			return nil, fmt.Errorf("no checksum of %s %s is known; is it the go.sum of this program?", m.Path, m.Version)
		}
		c.Hashes = []hash{{"SHA-256", hex.EncodeToString(raw)}} // of the module's files, as go.sum has it
		b.Components = append(b.Components, c)
	}
	doc, err := json.MarshalIndent(b, "", "  ")
	return append(doc, '\n'), err
}

func module(kind string, m *debug.Module) component {
	version := m.Version
	if version == "(devel)" {
		version = ""
	}
	purl := "pkg:golang/" + m.Path
	if version != "" {
		purl += "@" + strings.ReplaceAll(version, "+", "%2B")
	}
	return component{Type: kind, Ref: purl, Name: m.Path, Version: version, PURL: purl}
}

// readSums returns the checksums of modules' files, by "module version".
func readSums(r io.Reader) (map[string]string, error) {
	sums := map[string]string{}
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		if len(f) != 3 {
			return nil, fmt.Errorf("not a line of a go.sum: %q", lines.Text())
		}
		if !strings.HasSuffix(f[1], "/go.mod") {
			sums[f[0]+" "+f[1]] = f[2]
		}
	}
	return sums, lines.Err()
}
