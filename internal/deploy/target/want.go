package target

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/deploy/payload"
	"github.com/compute-daemons/compute-daemons/internal/systemd"
)

// Want is what a node is to be.
type Want struct {
	Node    string // as the SystemConfiguration calls it
	Host    string // of the API server
	Port    string
	Daemons []Daemon
	Payload payload.Payload
	Force   bool          // put there also what is there already
	Ready   time.Duration // how long a daemon may take until it says that it is ready
}

// Daemon is one program with what surrounds it.
type Daemon struct {
	Name        string   // of the folder with its credentials, below /etc
	Bin         string   // clientmountd or nnf-dm; "": only credentials are wanted
	Token, CA   []byte   // none: somebody else brings them
	Arguments   []string // for its command line
	Environment []Variable
}

// Variable is one of a daemon's environment.
type Variable struct{ Name, Value string }

// trait is what nnf-deploy knows of a program.
type trait struct {
	group        string // that may read its credentials
	folder, file string // modes of folders and secrets
	enabled      string // the unit that is enabled and runs
}

// Both are as the packages have it (tmpfiles.d, presets).
var traits = map[string]trait{
	"clientmountd": {"root", "0700", "0600", "clientmountd.service"},
	"nnf-dm":       {"nnf-dm", "0750", "0640", "nnf-dm.socket"},
	"":             {"root", "0700", "0600", ""},
}

// Programs are the programs that can be installed.
func Programs() []string { return []string{"clientmountd", "nnf-dm"} }

var folderName = regexp.MustCompile(`^[A-Za-z0-9_][-A-Za-z0-9_.]{0,63}$`)

// Check finds what cannot be: names that are no names of folders, programs that
// nobody knows here.
func (w *Want) Check() error {
	for _, d := range w.Daemons {
		if !folderName.MatchString(d.Name) {
			return fmt.Errorf("the daemon's name %.80q cannot be that of a folder below /etc", d.Name)
		}
		if _, known := traits[d.Bin]; !known {
			return fmt.Errorf("the program %.80q of %s is none that nnf-deploy can install: clientmountd, nnf-dm", d.Bin, d.Name)
		}
		if _, err := d.dropIn(); err != nil {
			return fmt.Errorf("%s: %w", d.Name, err)
		}
	}
	return nil
}

// file is one file that is to be on a node.
type file struct {
	path, mode, owner string
	content           []byte
	program           *payload.Program // instead of content
	bin               string           // the daemon that reads it
}

func (f *file) sum() string {
	if f.program != nil {
		return f.program.Sum
	}
	digest := sha256.Sum256(f.content)
	return hex.EncodeToString(digest[:])
}

func (f *file) size() int64 {
	if f.program != nil {
		return f.program.Size
	}
	return int64(len(f.content))
}

// The places of what nnf-deploy writes for a daemon.
func credentials(name string) (token, ca string) {
	return "/etc/" + name + "/service.token", "/etc/" + name + "/service.cert"
}
func folders(bin string) []string { return []string{"/etc/" + bin, "/etc/" + bin + "/config.d"} }
func settings(bin string) string  { return "/etc/" + bin + "/config.d/50-nnf-deploy.toml" }
func dropIn(bin string) string {
	return "/etc/systemd/system/" + bin + ".service.d/50-nnf-deploy.conf"
}

// files are those of a daemon, without its program.
func (w *Want) files(d *Daemon) ([]file, error) {
	t := traits[d.Bin]
	owner := "root:" + t.group
	token, ca := credentials(d.Name)
	var list []file
	if len(d.Token) > 0 {
		list = append(list, file{path: token, mode: t.file, owner: owner, content: d.Token, bin: d.Bin},
			file{path: ca, mode: t.file, owner: owner, content: d.CA, bin: d.Bin})
	}
	if d.Bin == "" {
		return list, nil
	}
	list = append(list, file{path: settings(d.Bin), mode: "0644", owner: "root:root", content: []byte(w.settings(d)), bin: d.Bin})
	text, err := d.dropIn()
	if text != "" {
		mode := "0644"
		if len(d.Environment) > 0 { // it may have secrets, such as the password of a proxy
			mode = "0600"
		}
		list = append(list, file{path: dropIn(d.Bin), mode: mode, owner: "root:root", content: []byte(text), bin: d.Bin})
	}
	return list, err
}

const written = "# Written by nnf-deploy, which replaces it. A file of your own with a later name wins.\n"

// settings is the configuration. All of it is plain text in quotes: names of
// nodes and addresses have nothing that TOML would escape otherwise than Go.
func (w *Want) settings(d *Daemon) string {
	text := written + fmt.Sprintf("[kubernetes]\nservice_host = %q\nservice_port = %q\n", w.Host, w.Port)
	if len(d.Token) > 0 {
		token, ca := credentials(d.Name)
		text += fmt.Sprintf("token_file = %q\ncert_file = %q\n", token, ca)
	}
	return text + fmt.Sprintf("\n[node]\nname = %q\n", w.Node)
}

// dropIn is what the unit gets of arguments and environment; "": nothing.
func (d *Daemon) dropIn() (string, error) {
	if d.Bin == "" || len(d.Arguments)+len(d.Environment) == 0 {
		return "", nil
	}
	var b strings.Builder
	b.WriteString(written + "[Service]\n")
	if len(d.Arguments) > 0 {
		b.WriteString("ExecStart=\nExecStart=/usr/bin/" + d.Bin)
		for _, a := range d.Arguments {
			word, err := systemd.Quote(a)
			if err != nil {
				return "", err
			}
			b.WriteString(" " + word)
		}
		b.WriteString("\n")
	}
	for _, v := range d.Environment {
		word, err := systemd.QuoteEnvironment(v.Name, v.Value)
		if err != nil {
			return "", err
		}
		b.WriteString("Environment=" + word + "\n")
	}
	return b.String(), nil
}
