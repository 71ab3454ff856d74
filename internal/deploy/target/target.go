// Package target brings one node to the state that is wanted: it finds out what is
// there, plans the difference, and makes the change in one go, or not at all.
//
// Two calls to the node are enough, one if there is nothing to do. What is sent is
// staged and verified first; the switch then runs on the node by itself, so that
// neither a broken connection nor Ctrl-C leaves it half way.
//
// It must not know how many nodes there are, nor where credentials come from.
package target

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/deploy/payload"
	"github.com/compute-daemons/compute-daemons/internal/deploy/product"
	"github.com/compute-daemons/compute-daemons/internal/systemd"
)

// Want is the wanted state of a node.
type Want struct {
	Node    string // as the SystemConfiguration calls it
	Host    string // of the API server
	Port    string
	Daemons []Daemon
	Payload payload.Payload
	Force   bool          // replace what is the same, too
	Ready   time.Duration // how long a daemon may take until it reports that it is ready
}

// Daemon is one program with its credentials and settings.
type Daemon struct {
	Name        string   // of the directory with its credentials, below /etc
	Bin         string   // one of product.Daemons; "": only credentials are wanted
	Token, CA   []byte   // none: they are installed by other means
	Arguments   []string // for its command line
	Environment []Variable
}

// Variable is an environment variable.
type Variable struct{ Name, Value string }

// product returns the daemon's entry in the table.
func (d *Daemon) product() product.Daemon {
	p, _ := product.Of(d.Bin) // Check has refused the others
	return p
}

// Check returns an error for a name that cannot be that of a directory, and for a
// program that nnf-deploy does not know.
func (w *Want) Check() error {
	for _, d := range w.Daemons {
		if !product.ValidName(d.Name) {
			return fmt.Errorf("the daemon's name %.80q cannot be that of a folder below /etc", d.Name)
		}
		if _, known := product.Of(d.Bin); !known {
			return fmt.Errorf("the program %.80q of %s is none that nnf-deploy can install: %s", d.Bin, d.Name, strings.Join(product.Names(), ", "))
		}
		if _, err := d.dropIn(); err != nil {
			return fmt.Errorf("%s: %w", d.Name, err)
		}
	}
	return nil
}

// file is one wanted file.
type file struct {
	path, mode, owner string
	content           []byte
	program           *payload.Program // instead of content
	bin               string           // the daemon that reads it; "": none has to be restarted for it
}

func (f *file) sum() string {
	if f.program != nil {
		return f.program.Sum
	}
	return sum(f.content)
}

func sum(data []byte) string {
	digest := sha256.Sum256(data)
	return hex.EncodeToString(digest[:])
}

func (f *file) size() int64 {
	if f.program != nil {
		return f.program.Size
	}
	return int64(len(f.content))
}

// files returns the wanted files of a daemon, without its program.
func (w *Want) files(d *Daemon) ([]file, error) {
	p := d.product()
	token, ca := product.Credentials(d.Name)
	var list []file
	if len(d.Token) > 0 {
		list = append(list, file{path: token, mode: p.SecretMode, owner: p.Owner, content: d.Token, bin: d.Bin},
			file{path: ca, mode: p.SecretMode, owner: p.Owner, content: d.CA, bin: d.Bin})
	}
	if d.Bin == "" {
		return list, nil
	}
	list = append(list, file{path: p.Settings(), mode: "0644", owner: "root:root", content: []byte(w.settings(d)), bin: d.Bin})
	text, err := d.dropIn()
	if text != "" {
		mode := "0644"
		if len(d.Environment) > 0 { // it may have secrets, such as the password of a proxy
			mode = "0600"
		}
		list = append(list, file{path: p.DropIn(), mode: mode, owner: "root:root", content: []byte(text), bin: d.Bin})
	}
	return list, err
}

// paths returns all files that nnf-deploy may have installed for a daemon, besides its
// package and its program.
func (d *Daemon) paths() []string {
	token, ca := product.Credentials(d.Name)
	list := []string{token, ca}
	if d.Bin == "" {
		return list
	}
	p := d.product()
	for _, program := range p.Beside {
		list = append(list, product.Path(program))
	}
	return append(list, p.Settings(), p.DropIn())
}

const written = "# Written by nnf-deploy, which replaces it. A file of your own with a later name wins.\n"

// settings returns the configuration file. Go's quotes are those of TOML here: names of
// nodes and addresses have no characters that TOML escapes in another way.
func (w *Want) settings(d *Daemon) string {
	text, section := written, ""
	set := func(key, value string) {
		table, name, _ := strings.Cut(key, ".")
		switch {
		case section == table:
		case section == "":
			text += "[" + table + "]\n"
		default:
			text += "\n[" + table + "]\n"
		}
		section = table
		text += fmt.Sprintf("%s = %q\n", name, value)
	}
	set(product.KeyHost, w.Host)
	set(product.KeyPort, w.Port)
	if len(d.Token) > 0 {
		token, ca := product.Credentials(d.Name)
		set(product.KeyToken, token)
		set(product.KeyCert, ca)
	}
	set(product.KeyNode, w.Node)
	return text
}

// dropIn returns the drop-in with arguments and environment for the unit; "": none.
func (d *Daemon) dropIn() (string, error) {
	if d.Bin == "" || len(d.Arguments)+len(d.Environment) == 0 {
		return "", nil
	}
	var b strings.Builder
	b.WriteString(written + "[Service]\n")
	if len(d.Arguments) > 0 {
		b.WriteString("ExecStart=\nExecStart=" + product.Path(d.Bin))
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
