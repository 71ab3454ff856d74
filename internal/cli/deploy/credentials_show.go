package deploy

import (
	"fmt"
	"strings"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/deploy/credentials"
	"github.com/compute-daemons/compute-daemons/internal/deploy/inventory"
	"github.com/compute-daemons/compute-daemons/internal/text"
)

// result is what became of one daemon's credentials.
type result struct {
	daemon string
	*credentials.Credentials
	written []credentials.Written
}

type credentialsDocument struct {
	Server      string                `json:"server"`         // where the credentials were tried
	Host        string                `json:"host,omitempty"` // for computes
	Port        int                   `json:"port,omitempty"`
	Credentials []credentialsJSONItem `json:"credentials"`
}

type credentialsJSONItem struct {
	Daemon    string     `json:"daemon"`
	Namespace string     `json:"namespace"`
	Account   string     `json:"service_account"`
	Source    string     `json:"source"`
	Bound     bool       `json:"bound"`
	Node      string     `json:"node,omitempty"`
	Expires   *time.Time `json:"expires"` // null: never
	Rights    int        `json:"rights_checked"`
	Files     []fileJSON `json:"files"`
	Notes     []string   `json:"notes"`
}

type fileJSON struct {
	Path   string `json:"path"`
	Change string `json:"change"`
}

func (v *call) showCredentials(all []result, at inventory.Address) error {
	if v.output == formatJSON {
		d := credentialsDocument{Host: at.Host, Port: at.Port}
		for _, r := range all {
			d.Server = r.Server
			d.Credentials = append(d.Credentials, r.json())
		}
		return text.JSON(v.Stdout, d)
	}
	var b strings.Builder
	for _, r := range all {
		fmt.Fprintf(&b, "%s: %s\n", r.daemon, text.Line(r.summary()))
		for _, w := range r.written {
			fmt.Fprintf(&b, "  %-9s  %s\n", w.Change, text.Line(w.Path))
		}
	}
	if at.Host != "" {
		fmt.Fprintf(&b, "API server for computes: host %s, port %d\n", at.Host, at.Port)
	}
	_, err := fmt.Fprint(v.Stdout, b.String())
	return err
}

// summary is what was found out, in one line.
func (r *result) summary() string {
	end := "does not end"
	if !r.Expires.IsZero() {
		end = "ends at " + r.Expires.UTC().Format(time.RFC3339)
	}
	if r.Node != "" {
		end += " or with node " + r.Node
	}
	return fmt.Sprintf("the token of %s %s; %d rights checked at %s", r.Account, end, r.Rights, r.Server)
}

func (r *result) json() credentialsJSONItem {
	item := credentialsJSONItem{
		Daemon: r.daemon, Namespace: r.Account.Namespace, Account: r.Account.Name, Source: r.Source,
		Bound: r.Bound, Node: r.Node, Rights: r.Rights, Notes: append([]string{}, r.Notes...),
	}
	if !r.Expires.IsZero() {
		end := r.Expires.UTC()
		item.Expires = &end
	}
	for _, w := range r.written {
		item.Files = append(item.Files, fileJSON{w.Path, w.Change})
	}
	return item
}
