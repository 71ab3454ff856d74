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

// secret has the fields of a Secret that this package reads.
type secret struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Type              string            `json:"type"`
	Data              map[string][]byte `json:"data"`
}

const (
	tokenType         = "kubernetes.io/service-account-token"
	accountAnnotation = "kubernetes.io/service-account.name"
	invalidSinceLabel = "kubernetes.io/legacy-token-invalid-since"
)

// interval is the delay between two attempts.
const interval = 250 * time.Millisecond

// fromSecret reads the token that all compute nodes share. It waits up to r.Wait for the
// control plane to fill a Secret that has just been created.
func fromSecret(ctx context.Context, admin *kube.Client, r Request) (*Credentials, error) {
	place := r.Account.Namespace + "/" + r.Secret
	deadline := time.Now().Add(r.Wait)
	for {
		var s secret
		err := admin.Get(ctx, secrets, r.Account.Namespace, r.Secret, &s)
		if kube.IsNotFound(err) {
			return nil, missingError(ctx, admin, r)
		}
		if err != nil {
			return nil, err
		}
		if owner := s.Annotations[accountAnnotation]; owner != r.Account.Name && owner != "" {
			return nil, fmt.Errorf("the Secret %s belongs to the account %q, not to %s; name the right Secret with --secret", place, owner, r.Account)
		}
		token, ca := strings.TrimSpace(string(s.Data["token"])), s.Data["ca.crt"]
		switch {
		case token != "" && len(ca) > 0:
			for _, f := range []struct {
				field string
				data  []byte
			}{{"token", s.Data["token"]}, {"ca.crt", ca}} {
				if kube.Encoded(f.data) {
					return nil, fmt.Errorf("%s in Secret %s %s; it was encoded twice when the Secret was created", f.field, place, kube.StillEncoded)
				}
			}
			if strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
				return nil, fmt.Errorf("the token in Secret %s is not valid: it contains white space or control characters", place)
			}
			if err := checkCA(ca); err != nil {
				return nil, fmt.Errorf("ca.crt in Secret %s: %w", place, err)
			}
			c := &Credentials{Token: token, CA: ca, Account: r.Account, Source: "Secret " + place}
			claims, err := kube.ClaimsOf(token)
			if errors.Is(err, kube.ErrClaimedExpiry) {
				c.note("the token in Secret " + place + ": " + err.Error())
			}
			if end := claims.Expires; !end.IsZero() {
				c.note("the token in Secret " + place + " expires at " + end.UTC().Format(time.RFC3339) + ": it was put there manually, and nothing renews it")
			}
			c.invalidSince = s.Labels[invalidSinceLabel]
			return c, nil
		case s.Type != tokenType:
			return nil, fmt.Errorf("the Secret %s has no token or no ca.crt, and the control plane does not fill a Secret of type %q: delete it and %s", place, s.Type, r.remedy())
		case !time.Now().Before(deadline):
			return nil, unfilledError(ctx, admin, r, place)
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(interval):
		}
	}
}

// unfilledError returns the error for a Secret without a token, with the likely reason.
func unfilledError(ctx context.Context, admin *kube.Client, r Request, place string) error {
	if err := admin.Get(ctx, accounts, r.Account.Namespace, r.Account.Name, nil); kube.IsNotFound(err) {
		return fmt.Errorf("the Secret %s has no token, because there is no ServiceAccount %s: %s", place, r.Account, r.remedy())
	}
	return fmt.Errorf("the Secret %s got no token within %v: check that kube-controller-manager, which fills it, is running", place, r.Wait)
}

// checkCA returns an error unless data consists of one or more PEM certificates.
func checkCA(data []byte) error {
	n := 0
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			break
		}
		if _, err := x509.ParseCertificate(block.Bytes); err != nil || block.Type != "CERTIFICATE" {
			return fmt.Errorf("it contains a PEM block that is not a certificate (%s)", block.Type)
		}
		n++
	}
	if n == 0 {
		return fmt.Errorf("it contains no PEM certificate")
	}
	return nil
}

// account has the fields of a ServiceAccount that this package reads.
type account struct {
	Secrets []struct {
		Name string `json:"name"`
	} `json:"secrets"`
}

// missingError returns the error for a missing Secret or account. As far as the
// administrator's permissions allow, it looks for older names, and adds what to do.
func missingError(ctx context.Context, admin *kube.Client, r Request) error {
	missing := fmt.Sprintf("there is no ServiceAccount %s", r.Account)
	var a account
	err := admin.Get(ctx, accounts, r.Account.Namespace, r.Account.Name, &a)
	if err == nil {
		for _, s := range a.Secrets {
			// Kubernetes before 1.24 created a Secret for each account, with a generated name.
			if strings.HasPrefix(s.Name, r.Account.Name+"-token-") {
				return fmt.Errorf("there is no Secret %s/%s, but the account lists %q: add --secret %s", r.Account.Namespace, r.Secret, s.Name, s.Name)
			}
		}
		return fmt.Errorf("there is no Secret %s/%s with a token of the account: %s, or use --bound, which needs no Secret", r.Account.Namespace, r.Secret, r.remedy())
	}
	p, _ := product.Of(r.Program)
	for _, old := range p.OlderAccounts {
		if old != r.Account && admin.Get(ctx, accounts, old.Namespace, old.Name, nil) == nil {
			return fmt.Errorf("%s, but there is %s from an older installation: add --service-account %s --namespace %s, or %s", missing, old, old.Name, old.Namespace, r.remedy())
		}
	}
	if !kube.IsNotFound(err) {
		return fmt.Errorf("there is no Secret %s/%s, and its ServiceAccount cannot be read: %w", r.Account.Namespace, r.Secret, err)
	}
	return fmt.Errorf("%s: check that %s is the right cluster; if it is, %s", missing, admin.Address(), r.remedy())
}
