// Package target brings one node into the wanted state: it inspects the node, plans the
// difference, and applies the plan as a whole or not at all.
//
// It needs two connections to the node, or one if there is nothing to do. The files are
// staged and verified first. The switch then runs on the node independently, so neither a
// broken connection nor Ctrl-C can stop it half way.
//
// It must not depend on the number of nodes, or on where credentials come from.
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
	Node    string // name in the SystemConfiguration
	Host    string // of the API server
	Port    string
	Daemons []Daemon
	Payload payload.Payload
	Force   bool          // replace files and packages even if they are the same
	Ready   time.Duration // limit for a daemon to report that it is ready
}

// Daemon is the wanted state of one daemon: its program, credentials and settings.
type Daemon struct {
	Name        string          // of the directory with its credentials, below /etc
	Bin         string          // one of product.Daemons; "": only credentials are installed
	Token, CA   []byte          // empty: nnf-deploy does not install credentials for it
	PerNode     bool            // the token belongs to the daemon's account on this node only
	Keep        bool            // keep the token on the node; Token is empty, CA is not
	Why         string          // why the token on the node is replaced, for display; can be empty
	Account     product.Account // that all nodes share, to recognize its token
	Arguments   []string        // for its command line
	Environment []Variable
}

// Variable is an environment variable.
type Variable struct{ Name, Value string }

// credentials reports whether nnf-deploy installs credentials for the daemon.
func (d *Daemon) credentials() bool { return len(d.Token) > 0 || d.Keep }

// product returns the entry of the daemon in the product table.
func (d *Daemon) product() product.Daemon {
	p, _ := product.Of(d.Bin) // Check has refused unknown programs
	return p
}

// Check returns an error for a daemon name that is not a valid directory name, for an
// unknown program, and for arguments and variables that cannot be in a unit.
func (w *Want) Check() error {
	for _, d := range w.Daemons {
		if !product.ValidName(d.Name) {
			return fmt.Errorf("daemon name %.80q is not a valid directory name", d.Name)
		}
		if _, known := product.Of(d.Bin); !known {
			return fmt.Errorf("%.80q, the program of %s, is not supported: use one of %s", d.Bin, d.Name, strings.Join(product.Names(), ", "))
		}
		if _, err := d.dropIn(); err != nil {
			return fmt.Errorf("%s: %w", d.Name, err)
		}
	}
	return nil
}

// file is a wanted file.
type file struct {
	path, mode, owner string
	content           []byte
	program           *payload.Program // replaces content if it is not nil
	bin               string           // daemon to restart if the file changes; "": none
	why               string           // why it changes, for display; can be empty
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

// files returns the wanted files of a daemon, without its programs.
func (w *Want) files(d *Daemon) ([]file, error) {
	p := d.product()
	token, ca := product.Credentials(d.Name)
	var list []file
	if len(d.Token) > 0 {
		list = append(list, file{path: token, mode: p.SecretMode, owner: p.Owner, content: d.Token, bin: d.Bin, why: d.Why})
	}
	if d.credentials() {
		list = append(list, file{path: ca, mode: p.SecretMode, owner: p.Owner, content: d.CA, bin: d.Bin})
	}
	if d.Bin == "" {
		return list, nil
	}
	list = append(list, file{path: p.Settings(), mode: "0644", owner: "root:root", content: []byte(w.settings(d)), bin: d.Bin})
	text, err := d.dropIn()
	if text != "" {
		mode := "0644"
		if len(d.Environment) > 0 { // it may contain secrets, such as the password of a proxy
			mode = "0600"
		}
		list = append(list, file{path: p.DropIn(), mode: mode, owner: "root:root", content: []byte(text), bin: d.Bin})
	}
	return list, err
}

// paths returns the paths of all files that nnf-deploy may have installed for a daemon,
// except its package and the daemon itself.
func (d *Daemon) paths() []string {
	token, ca := product.Credentials(d.Name)
	list := []string{token, ca}
	if d.Bin == "" {
		return list
	}
	p := d.product()
	for _, program := range p.Clients {
		list = append(list, product.Path(program))
	}
	return append(list, p.Settings(), p.DropIn())
}

// timerPaths returns the paths of the files that nnf-deploy may have written for the timer.
func (d *Daemon) timerPaths() []string {
	if p := d.product(); p.Timer() != "" {
		return []string{p.OwnTimer(), p.TimerRecord()}
	}
	return nil
}

// header is the first line of the files that nnf-deploy writes. A changed header would make
// the next run replace these files on every node, and restart the daemons.
const header = "# Written by nnf-deploy, which replaces it. A file of your own with a later name wins.\n"

// settings returns the contents of the configuration file. It quotes values as in Go, which
// is correct in TOML, too: names of nodes and addresses have no characters for which the
// escapes differ.
func (w *Want) settings(d *Daemon) string {
	text, section := header, ""
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
	if d.credentials() {
		token, ca := product.Credentials(d.Name)
		set(product.KeyToken, token)
		set(product.KeyCert, ca)
	}
	set(product.KeyNode, w.Node)
	return text
}

// dropIn returns the contents of the drop-in with arguments and environment, or "" if no
// drop-in is needed.
func (d *Daemon) dropIn() (string, error) {
	if d.Bin == "" || len(d.Arguments)+len(d.Environment) == 0 {
		return "", nil
	}
	var b strings.Builder
	b.WriteString(header + "[Service]\n")
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
