package target

import (
	"slices"
	"strings"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/api"
	"github.com/compute-daemons/compute-daemons/internal/deploy/product"
	"github.com/compute-daemons/compute-daemons/internal/kube"
)

// The node reports the claims of its tokens, which nothing proves. A node that reports false ones can
// only keep the token that it has.

// token returns the claims of the token that the daemon uses: of the token file and of the token
// that it has renewed itself, the one that was issued last for the same account. Known is false if
// the token file has no service account token.
func (r *Report) token(d *Daemon) (claims kube.Claims, known bool) {
	path, _ := product.Credentials(d.Name)
	claims, known = r.Claims[path]
	if d.Bin == "" || !known {
		return claims, known
	}
	stored := r.storedToken(d)
	if c, ok := r.Claims[stored]; ok && r.Files[stored].State == storedFile && c.Newer(claims) {
		return c, true
	}
	return claims, true
}

// Kind returns the kind of the account whose token the daemon has on the node.
func (r *Report) Kind(d *Daemon, node string) string {
	claims, _ := r.token(d)
	return kind(d, node, claims.Subject)
}

// kind returns the kind of the account of a token of a daemon on a node.
func kind(d *Daemon, node, user string) string {
	p := d.product()
	switch {
	case d.Bin != "" && user == p.NodeAccount(node).User():
		return KindPerNode
	case !strings.HasPrefix(user, api.ServiceAccountPrefix):
		return ""
	case slices.ContainsFunc(append([]product.Account{d.Account, p.Account}, p.OlderAccounts...), func(a product.Account) bool { return a.Name != "" && user == a.User() }):
		return KindShared
	}
	return KindOther
}

// Reasons for a new token of an account of one node.
const (
	whyMissing  = "the node has no service account token"
	whyForever  = "the token on the node does not expire"
	whyAccount  = "the token on the node belongs to another account"
	whyRecreate = "the account was created again since the token was issued"
	whyHalf     = "less than half of its lifetime is left"
	whyLonger   = "the token on the node has a longer lifetime"
	whyReadable = "the token file had the wrong owner or mode"
	whyForced   = "forced"
)

// Rotate returns why the node needs a new token of the daemon's own account, or "" if it keeps its
// token: that belongs to the account with this UID, has at least half of its lifetime left, and no
// longer lifetime than the wanted one. An empty uid is not compared.
func (r *Report) Rotate(d *Daemon, w *Want, uid string, lifetime time.Duration, now time.Time) string {
	path, _ := product.Credentials(d.Name)
	p, have := d.product(), r.Files[path]
	file, known := r.Claims[path]
	used, _ := r.token(d)
	const granted = 20 // a lifetime may exceed the wanted one by 1/granted
	switch life := used.Life(); {
	case w.Force:
		return whyForced
	case !known:
		return whyMissing
	case file.Subject != p.NodeAccount(w.Node).User():
		return whyAccount
	case uid != "" && used.UID != uid:
		return whyRecreate
	case "0"+have.Mode != p.SecretMode || have.Owner != p.Owner:
		return whyReadable
	case life == 0:
		return whyForever
	case used.Expires.Sub(now) < life/2:
		return whyHalf
	case life > lifetime+lifetime/granted:
		return whyLonger
	}
	return ""
}
