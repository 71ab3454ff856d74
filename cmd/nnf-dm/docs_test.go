package main

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	pb2 "github.com/compute-daemons/compute-daemons/internal/api/datamovement/v2"
	"github.com/compute-daemons/compute-daemons/internal/datamovement/server"
	"github.com/compute-daemons/compute-daemons/internal/e2e/manual"
)

// The settings in the manual are those of the table; -update writes them.
func TestManualSettings(t *testing.T) {
	manual.Read(t, program.Name).Settings(t, new(server.Configuration).Table(), *update)
}

func TestManualEvents(t *testing.T) { manual.Read(t, program.Name).Events(t, server.Events()) }

func TestManualFields(t *testing.T) {
	manual.Read(t, program.Name).Fields(t, "internal/datamovement/server", "internal/unixsocket", "internal/kube", "internal/daemon")
}

// Every reason has its row, with the gRPC code that it has on the wire.
func TestManualReasons(t *testing.T) {
	rows := map[string]string{}
	for _, m := range regexp.MustCompile("(?m)^\\| `([A-Z_]+)` \\| ([A-Z_]+) \\|").FindAllStringSubmatch(manual.Read(t, program.Name).Section(t, "## What an error says"), -1) {
		rows[m[1]] = m[2]
	}
	for number, name := range pb2.ErrorReason_name {
		if number == 0 {
			continue
		}
		code := pb2.ErrorReason(number).Code().String()
		if got := strings.ReplaceAll(rows[name], "_", ""); !strings.EqualFold(got, strings.Replace(code, "Canceled", "Cancelled", 1)) {
			t.Errorf("%s has the code %q in the manual, %s on the wire", name, rows[name], code)
		}
		delete(rows, name)
	}
	for name := range rows {
		t.Errorf("%s is not sent", name)
	}
}

// Every limit is in the table of limits, and every setting that the text names
// exists.
func TestManualNamesSettings(t *testing.T) {
	page := manual.Read(t, program.Name)
	limits := page.Section(t, "## Limits")
	var keys []string
	for _, s := range new(server.Configuration).Table().Settings {
		keys = append(keys, s.Key)
		if strings.HasPrefix(s.Key, "limits.") && !strings.Contains(limits, "`"+s.Key+"`") {
			t.Errorf("%s is not in the table of limits", s.Key)
		}
	}
	sections := "strict_credentials|(?:kubernetes|node|socket|access|options|limits|daemon|log|runtime)\\.[a-z_]+"
	seen := 0
	for _, m := range regexp.MustCompile("`("+sections+")(?: = [^`]*)?`").FindAllStringSubmatch(page.Text, -1) {
		seen++
		if !slices.Contains(keys, m[1]) {
			t.Errorf("there is no setting %s", m[1])
		}
	}
	if seen < 20 {
		t.Errorf("only %d settings were found in the text", seen)
	}
}

// What version 1 clients may send beside the messages is named as it is.
func TestManualRequestKey(t *testing.T) {
	if !strings.Contains(manual.Read(t, program.Name).Section(t, "## Notes for clients"), "`"+server.KeyMetadata+"`") {
		t.Errorf("%s is not in the notes", server.KeyMetadata)
	}
}
