package credentials

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/compute-daemons/compute-daemons/internal/deploy/product"
	"github.com/compute-daemons/compute-daemons/internal/kube"
)

// secret is the part of a Secret that is read.
type secret struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Type              string            `json:"type"`
	Data              map[string][]byte `json:"data"`
}

const (
	tokenType    = "kubernetes.io/service-account-token"
	ofAccount    = "kubernetes.io/service-account.name"
	invalidSince = "kubernetes.io/legacy-token-invalid-since"
)

// interval is the pause between two attempts.
const interval = 250 * time.Millisecond

// fromSecret reads the token that all computes share. The control plane fills the Secret a
// moment after it was created.
func fromSecret(ctx context.Context, admin *kube.Client, r Request) (*Credentials, error) {
	place := r.Account.Namespace + "/" + r.Secret
	deadline := time.Now().Add(r.Wait)
	for {
		var s secret
		err := admin.Get(ctx, secrets, r.Account.Namespace, r.Secret, &s)
		if kube.IsNotFound(err) {
			return nil, absent(ctx, admin, r)
		}
		if err != nil {
			return nil, err
		}
		if owner := s.Annotations[ofAccount]; owner != r.Account.Name && owner != "" {
			return nil, fmt.Errorf("the Secret %s belongs to the account %q, not to %s; give the right one by --secret", place, owner, r.Account)
		}
		token, ca := strings.TrimSpace(string(s.Data["token"])), s.Data["ca.crt"]
		switch {
		case token != "" && len(ca) > 0:
			for _, f := range []struct {
				field string
				data  []byte
			}{{"token", s.Data["token"]}, {"ca.crt", ca}} {
				if kube.Encoded(f.data) {
					return nil, fmt.Errorf("%s in Secret %s %s; it was encoded twice when the Secret was made", f.field, place, kube.StillEncoded)
				}
			}
			if strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
				return nil, fmt.Errorf("the token in Secret %s has white space or control characters in it, so it is none", place)
			}
			if err := checkCA(ca); err != nil {
				return nil, fmt.Errorf("ca.crt in Secret %s: %w", place, err)
			}
			c := &Credentials{Token: token, CA: ca, Account: r.Account, Source: "Secret " + place}
			said, err := kube.ClaimsOf(token)
			if errors.Is(err, kube.ErrClaimedExpiry) {
				c.note("the token in Secret " + place + ": " + err.Error())
			}
			if end := said.Expires; !end.IsZero() {
				c.note("the token in Secret " + place + " ends at " + end.UTC().Format(time.RFC3339) + ": somebody put it there, and nobody renews it")
			}
			c.disused = s.Labels[invalidSince]
			return c, nil
		case s.Type != tokenType:
			return nil, fmt.Errorf("the Secret %s has no token or no ca.crt, and being of type %q it never gets them: delete it and %s", place, s.Type, remedy(r.Program))
		case !time.Now().Before(deadline):
			return nil, unfilled(ctx, admin, r, place)
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(interval):
		}
	}
}

// unfilled returns why a Secret may have stayed empty.
func unfilled(ctx context.Context, admin *kube.Client, r Request, place string) error {
	if err := admin.Get(ctx, accounts, r.Account.Namespace, r.Account.Name, nil); kube.IsNotFound(err) {
		return fmt.Errorf("the Secret %s has no token, because there is no ServiceAccount %s: %s", place, r.Account, remedy(r.Program))
	}
	return fmt.Errorf("the Secret %s got no token within %v; kube-controller-manager puts it there: does it run?", place, r.Wait)
}

// checkCA returns an error if data has no certificate, or anything else.
func checkCA(data []byte) error {
	n := 0
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			break
		}
		if _, err := x509.ParseCertificate(block.Bytes); err != nil || block.Type != "CERTIFICATE" {
			return fmt.Errorf("a part of it is no certificate (%s)", block.Type)
		}
		n++
	}
	if n == 0 {
		return fmt.Errorf("no PEM certificate in it")
	}
	return nil
}

// account is the part of a ServiceAccount that is read.
type account struct {
	Secrets []struct {
		Name string `json:"name"`
	} `json:"secrets"`
}

// absent returns the error for a missing Secret or account. It finds out what there is
// instead, as far as the administrator may read it, and what to do.
func absent(ctx context.Context, admin *kube.Client, r Request) error {
	missing := fmt.Sprintf("there is no ServiceAccount %s", r.Account)
	var a account
	err := admin.Get(ctx, accounts, r.Account.Namespace, r.Account.Name, &a)
	if err == nil {
		for _, s := range a.Secrets {
			// Kubernetes before 1.24 made them, with names of its own.
			if strings.HasPrefix(s.Name, r.Account.Name+"-token-") {
				return fmt.Errorf("there is no Secret %s/%s, but the account has %q: add --secret %s", r.Account.Namespace, r.Secret, s.Name, s.Name)
			}
		}
		return fmt.Errorf("there is no Secret %s/%s with a token of the account: %s, or use --bound, which needs none", r.Account.Namespace, r.Secret, remedy(r.Program))
	}
	p, _ := product.Of(r.Program)
	for _, old := range p.OlderAccounts {
		if old != r.Account && admin.Get(ctx, accounts, old.Namespace, old.Name, nil) == nil {
			return fmt.Errorf("%s, but an older installation's %s: add --service-account %s --namespace %s, or %s", missing, old, old.Name, old.Namespace, remedy(r.Program))
		}
	}
	if !kube.IsNotFound(err) {
		return fmt.Errorf("there is no Secret %s/%s, and whether there is its account cannot be told: %w", r.Account.Namespace, r.Secret, err)
	}
	return fmt.Errorf("%s: is this the right cluster (%s)? otherwise %s", missing, admin.Address(), remedy(r.Program))
}
