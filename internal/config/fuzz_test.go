package config_test

import (
	"bytes"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/compute-daemons/compute-daemons/internal/clientmount"
	"github.com/compute-daemons/compute-daemons/internal/config"
	"github.com/compute-daemons/compute-daemons/internal/text/usage"
)

// FuzzTOML checks that no file makes the reader panic or forges a line, that every
// error has the path of the file, and that valid files survive a dump.
func FuzzTOML(f *testing.F) {
	// The seeds are in testdata. They are small, because the fuzzing engine spends
	// its time on minimizing long ones.
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > config.MaxFile {
			t.Skip("longer than a valid file")
		}
		table := new(clientmount.Configuration).Table()
		values, problems := config.ParseFile(table, "some.toml", data)
		for _, p := range problems {
			line := p.Error()
			if !strings.HasPrefix(line, "some.toml:") || strings.ContainsAny(line, "\n\r\x00\x1b") || !utf8.ValidString(line) || len(line) > 2000 {
				t.Errorf("message %q", line)
			}
		}
		if len(problems) > 0 {
			return
		}
		r, err := config.FromFile(table, values)
		if err != nil {
			t.Fatal(err)
		}
		var first bytes.Buffer
		if err := config.Dump(&first, table, r); err != nil {
			t.Fatal(err)
		}
		again, problems := config.ParseFile(table, "dump", first.Bytes())
		if len(problems) > 0 || len(again) != len(table.Settings) {
			t.Fatalf("the dump is not accepted: %v\n%s", problems, first.String())
		}
		for _, v := range again {
			before, _ := r.Lookup(v.Setting.Key)
			if before.Literal() != v.Literal() {
				t.Errorf("%s was %s, reads back as %s", v.Setting.Key, before.Literal(), v.Literal())
			}
		}
	})
}

// FuzzArgs checks that no command line makes the parser panic, and that each is
// valid, a request for help, or a usage error of one line.
func FuzzArgs(f *testing.F) {
	for _, seed := range []string{"", "-h", "--mock", "-node-name\x00n", "--log-level=debug\x00--\x00x", "--\x00-h", "-zap-devel", "---", "--=", "-=", "-", "---``````\x85\x1b"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, joined string) {
		_, err := config.CheckArgs(new(clientmount.Configuration).Table(), strings.Split(joined, "\x00"))
		if err != nil && err != config.ErrHelp {
			if _, ok := err.(*usage.Error); !ok || strings.ContainsAny(err.Error(), "\n\r\x1b") {
				t.Errorf("%T %q", err, err)
			}
		}
	})
}
