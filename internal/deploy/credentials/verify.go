package credentials

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/compute-daemons/compute-daemons/internal/api"
	"github.com/compute-daemons/compute-daemons/internal/deploy/identities"
	"github.com/compute-daemons/compute-daemons/internal/deploy/product"
	"github.com/compute-daemons/compute-daemons/internal/kube"
	"github.com/compute-daemons/compute-daemons/internal/text/hint"
)

// cacheDelay is how long an API server may take to notice an account, token or role that
// has just been created: it answers from a cache that its watches fill, and there may be
// several API servers.
const cacheDelay = 3 * time.Second

// staleCacheError is a refusal that an API server with an outdated cache may return.
type staleCacheError struct{ error }

func (e staleCacheError) Unwrap() error { return e.error }

// verify uses the credentials as a daemon does. It retries after a staleCacheError,
// because scripts often run "nnf-deploy credentials" directly after "kubectl apply".
func verify(ctx context.Context, admin *kube.Client, c *Credentials, r Request) error {
	for end := time.Now().Add(cacheDelay); ; {
		err := verifyOnce(ctx, admin, c, r)
		if !errors.As(err, new(staleCacheError)) || time.Now().After(end) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(interval):
		}
	}
}

func verifyOnce(ctx context.Context, admin *kube.Client, c *Credentials, r Request) error {
	claims, _ := kube.ClaimsOf(c.Token) // zero for a token that is not a JWT
	if c.Expires.IsZero() {
		c.Expires = claims.Expires
	}
	id := kube.Identity{Token: c.Token, CA: c.CA}
	if r.Address.Host != "" {
		id.Host, id.Port = r.Address.Host, strconv.Itoa(r.Address.Port)
	}
	as, err := admin.As(id)
	if err != nil {
		return fmt.Errorf("%s: %w", c.Source, err)
	}
	defer as.Close()
	c.Server = as.Address()
	user, err := as.WhoAmI(ctx)
	if err != nil {
		return explain(c, &r, claims, err)
	}
	if user == "" {
		user = claims.Subject // the server is too old to report the user
	}
	if user != r.Account.User() {
		return fmt.Errorf("the token of %s belongs to %q, not to %q: check --secret, --service-account and --namespace", c.Source, user, r.Account.User())
	}
	return checkRights(ctx, as, c, r)
}

// explain adds the likely reason and a hint to a refusal.
func explain(c *Credentials, r *Request, claims kube.Claims, err error) error {
	if !apierrors.IsUnauthorized(err) {
		return fmt.Errorf("the credentials from %s do not work: %w", c.Source, err)
	}
	var why, next string
	stale := false
	switch {
	case !claims.Expires.IsZero() && time.Now().After(claims.Expires):
		why, next = "it expired at "+claims.Expires.UTC().Format(time.RFC3339), "delete the Secret and create it again, or use --bound"
	case c.invalidSince != "":
		why = "the control plane marked it as invalid on " + c.invalidSince + ", because it had not been used for a year"
		next = "to use it anyway, remove the label " + invalidSinceLabel + " from the Secret"
	case claims.Subject != "" && claims.Subject != c.Account.User():
		why, next = fmt.Sprintf("it was issued for %q, not for %q", claims.Subject, c.Account.User()), "check --secret, --service-account and --namespace"
	default:
		why, next = "another cluster issued it, or its account has been deleted since", "delete the Secret and create it again"
		if r.Own != nil {
			why, next = "its account has been deleted since", r.remedy()+", then run this command again"
		}
		stale = true
	}
	err = fmt.Errorf("API server %s refuses the token of %s: %s; %s", c.Server, c.Source, why, next)
	if stale {
		return staleCacheError{err}
	}
	return err
}

// checkRights checks each right of the program at the API server. A missing right that the
// program uses is an error; other missing rights are a note.
func checkRights(ctx context.Context, as *kube.Client, c *Credentials, r Request) error {
	p, _ := product.Of(r.Program)
	used, other := api.Permissions(p.Rules)
	if r.Own != nil {
		used, other = identities.Permissions(p, *r.Own)
	}
	allowed, err := as.Allowed(ctx, slices.Concat(used, other))
	if err != nil {
		return fmt.Errorf("cannot check the permissions of %s: %w", c.Account, err)
	}
	c.Rights = len(allowed)
	var missing, unused, excess []string
	for i, ok := range allowed {
		switch {
		case i < len(used) && !ok:
			missing = append(missing, scoped(used[i]))
		case i >= len(used) && ok:
			excess = append(excess, other[i-len(used)].String())
		case i >= len(used):
			unused = append(unused, other[i-len(used)].String())
		}
	}
	if r.Own != nil {
		return r.checkOwn(missing, excess)
	}
	if len(missing) > 0 {
		return staleCacheError{fmt.Errorf("%s lacks these permissions in all namespaces: %s; %s, which grants them", c.Account.User(), strings.Join(missing, ", "), r.remedy())}
	}
	if len(unused) > 0 {
		c.note(fmt.Sprintf("%s lacks permissions that this %s does not need but older versions do: %s", c.Account.User(), r.Program, strings.Join(unused, ", ")))
	}
	return nil
}

// checkOwn returns an error if the account of one node lacks permissions, or has permissions for
// the objects of other nodes.
func (r *Request) checkOwn(missing, excess []string) error {
	switch {
	case len(missing) > 0:
		err := fmt.Errorf("%s lacks these permissions: %s", r.Account.User(), strings.Join(missing, ", "))
		return staleCacheError{hint.Add(err, "%s", r.remedy())}
	case len(excess) > 0:
		err := fmt.Errorf("the token of %s would be valid for other nodes, too: a binding grants it in all namespaces: %s", r.Account.User(), strings.Join(excess, ", "))
		return staleCacheError{hint.Add(err, "remove that binding: kubectl get clusterrolebindings -o wide | grep %s", r.Account)}
	}
	return nil
}

// scoped returns a permission with its namespace.
func scoped(p api.Permission) string {
	if p.Namespace == "" {
		return p.String()
	}
	return p.String() + " in " + p.Namespace
}
