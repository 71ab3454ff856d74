package deploy

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/deploy/credentials"
	"github.com/compute-daemons/compute-daemons/internal/deploy/inventory"
	"github.com/compute-daemons/compute-daemons/internal/deploy/product"
	"github.com/compute-daemons/compute-daemons/internal/deploy/target"
	"github.com/compute-daemons/compute-daemons/internal/kube"
	"github.com/compute-daemons/compute-daemons/internal/text/hint"
)

// wants are the daemons as a node gets them. from is a folder with credentials;
// "": they come from the cluster.
func (j *job) wants(ctx context.Context, from string, at inventory.Address, asked bool) ([]target.Daemon, error) {
	var list []target.Daemon
	for _, d := range j.daemons {
		want, err := daemonOf(d)
		if err != nil {
			return nil, err
		}
		switch {
		case d.Account.Name == "":
		case from != "":
			err = readCredentials(from, len(j.daemons) == 1, &want)
		default:
			err = j.fetch(ctx, d, at, asked, &want)
		}
		if err != nil {
			return nil, err
		}
		list = append(list, want)
	}
	return list, nil
}

func (j *job) fetch(ctx context.Context, d inventory.Daemon, at inventory.Address, asked bool, want *target.Daemon) error {
	admin, err := j.cluster()
	if err != nil {
		return hint.Add(err, "alternatively, give the credentials with --credentials DIR")
	}
	r := credentials.Request{Account: d.Account, Program: d.Bin, Wait: 15 * time.Second}
	if asked {
		r.Address = at
	}
	c, err := credentials.Get(ctx, admin, r)
	if err != nil {
		return fmt.Errorf("%s: %w", d.Name, err)
	}
	for _, n := range c.Notes {
		j.v.Say("%s: note: %s", d.Name, n)
	}
	want.Token, want.CA = []byte(c.Token), c.CA
	return nil
}

func daemonOf(d inventory.Daemon) (target.Daemon, error) {
	want := target.Daemon{Name: d.Name, Bin: d.Bin}
	var err error
	if want.Arguments, err = words(d.ExtraArgs); err != nil {
		return want, fmt.Errorf("%s: extraArgs: %w", d.Name, err)
	}
	for _, e := range d.Env {
		want.Environment = append(want.Environment, target.Variable{Name: e.Name, Value: e.Value})
	}
	return want, nil
}

// words splits arguments at blanks, outside of quotes.
func words(text string) (list []string, err error) {
	var word strings.Builder
	inside, quote := false, rune(0)
	for _, c := range text {
		switch {
		case quote != 0 && c == quote:
			quote = 0
		case quote != 0:
			word.WriteRune(c)
		case c == '"' || c == '\'':
			inside, quote = true, c
		case c == ' ':
			if inside {
				list = append(list, word.String())
				word.Reset()
			}
			inside = false
		default:
			inside = true
			word.WriteRune(c)
		}
	}
	if quote != 0 {
		return nil, fmt.Errorf("the quote %c is not closed", quote)
	}
	if inside {
		list = append(list, word.String())
	}
	return list, nil
}

// readCredentials takes what nnf-deploy credentials has written.
func readCredentials(dir string, alone bool, want *target.Daemon) error {
	below := filepath.Join(dir, want.Name)
	if _, err := os.Stat(below); alone && errors.Is(err, fs.ErrNotExist) {
		below = dir
	}
	for _, f := range []struct {
		name string
		into *[]byte
	}{{product.TokenFile, &want.Token}, {product.CertFile, &want.CA}} {
		data, err := os.ReadFile(filepath.Join(below, f.name))
		if err != nil {
			return fmt.Errorf("credentials of %s: %w", want.Name, err)
		}
		if len(strings.TrimSpace(string(data))) == 0 {
			return fmt.Errorf("credentials of %s: %s is empty", want.Name, filepath.Join(below, f.name))
		}
		if kube.Encoded(data) {
			return fmt.Errorf("credentials of %s: %s %s", want.Name, filepath.Join(below, f.name), kube.StillEncoded)
		}
		*f.into = data
	}
	return nil
}

// wantOf is what one node is to be.
func wantOf(node inventory.Node, at inventory.Address, daemons []target.Daemon) target.Want {
	return target.Want{Node: node.Name, Host: at.Host, Port: strconv.Itoa(at.Port), Daemons: daemons}
}
