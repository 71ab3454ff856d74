package reference

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/clientmount"
	"github.com/compute-daemons/compute-daemons/internal/config"
	"github.com/compute-daemons/compute-daemons/internal/datamovement/server"
	"github.com/compute-daemons/compute-daemons/internal/e2e/manual"
)

// Each TOML block of the guides starts with the path of a configuration file, and its
// program accepts the block as that file.
func TestGuideConfigurations(t *testing.T) {
	paths, err := filepath.Glob(filepath.Join(root, "docs/*.md"))
	if err != nil {
		t.Fatal(err)
	}
	heading := regexp.MustCompile(`^# /etc/(clientmountd|nnf-dm)/config\.(?:toml|d/[a-z-]+\.toml)\n`)
	found := 0
	for _, path := range paths {
		page, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range manual.Blocks(string(page), "toml") {
			found++
			program := heading.FindStringSubmatch(b.Text)
			if program == nil {
				t.Errorf("%s: no path of a configuration file in the first line of:\n%s", path, b.Text)
				continue
			}
			var table *config.Table
			if program[1] == "clientmountd" {
				table = new(clientmount.Configuration).Table()
			} else {
				table = new(server.Configuration).Table()
			}
			file := filepath.Join(t.TempDir(), "config.toml")
			if err := os.WriteFile(file, []byte("version = 1\n"+b.Text), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := config.Check(t.Output(), table, config.Sources{Args: []string{"--config", file}}); err != nil {
				t.Errorf("%s: %v", path, err)
			}
		}
	}
	if found < 5 {
		t.Errorf("%d TOML blocks were found in the guides, want at least 5", found)
	}
}

// The messages that the guides list, in the first column of a table of messages, are texts of
// the programs.
func TestGuideMessages(t *testing.T) {
	var all strings.Builder
	for program := range sources {
		all.WriteString(texts(t, program))
	}
	paths, err := filepath.Glob(filepath.Join(root, "docs/*.md"))
	if err != nil {
		t.Fatal(err)
	}
	heading := regexp.MustCompile(`^\| (message|what you see) \|`)
	found := 0
	for _, path := range paths {
		page, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		messages := false
		for line := range strings.Lines(string(page)) {
			if !strings.HasPrefix(line, "|") {
				messages = false
			} else if heading.MatchString(line) {
				messages = true
			}
			if !messages {
				continue
			}
			for _, message := range quoted(strings.Split(line, " | ")[0]) {
				found++
				for _, part := range fragments(message) {
					if !strings.Contains(all.String(), part) && part != "certificate signed by unknown authority" { // of crypto/x509
						t.Errorf("%s: no program prints %q of %q", path, part, message)
					}
				}
			}
		}
	}
	if found < 10 {
		t.Errorf("%d messages were found in the guides, want at least 10", found)
	}
}
