package credentials

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/compute-daemons/compute-daemons/internal/deploy/product"
	"github.com/compute-daemons/compute-daemons/internal/kube"
)

// settles is how long an API server may take to learn of an account, a token or a role that
// was created just before: it answers from a cache that its watches fill, and there may be
// several API servers.
const settles = 3 * time.Second

// unsettled is a refusal by an API server whose cache may be behind.
type unsettled struct{ error }

func (u unsettled) Unwrap() error { return u.error }

// verify uses the credentials as a daemon would, and retries after a refusal that may end
// soon: "kubectl apply" and "nnf-deploy credentials" are often one line of a script.
func verify(ctx context.Context, admin *kube.Client, c *Credentials, r Request) error {
	for end := time.Now().Add(settles); ; {
		err := try(ctx, admin, c, r)
		if !errors.As(err, new(unsettled)) || time.Now().After(end) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(interval):
		}
	}
}

func try(ctx context.Context, admin *kube.Client, c *Credentials, r Request) error {
	said, _ := kube.ClaimsOf(c.Token) // a token of another kind has no claims
	if c.Expires.IsZero() {
		c.Expires = said.Expires
	}
	id := kube.Identity{Token: c.Token, CA: c.CA}
	if r.Address.Host != "" {
		id.Host, id.Port = r.Address.Host, strconv.Itoa(r.Address.Port)
	}
	as, err := admin.As(id)
	if err != nil {
		return fmt.Errorf("%s: %w", c.Source, err)
	}
	c.Server = as.Address()
	user, err := whoAmI(ctx, as)
	if err != nil {
		return explain(c, said, err)
	}
	if user == "" {
		user = said.Subject // the server is too old to report it
	}
	if user != r.Account.User() {
		return fmt.Errorf("the token of %s is that of %q, not of %q: is it the right Secret?", c.Source, user, r.Account.User())
	}
	return checkRights(ctx, as, c, r)
}

// whoAmI asks the API server for the user of the token; "" if it does not answer that,
// as before Kubernetes 1.28.
func whoAmI(ctx context.Context, as *kube.Client) (string, error) {
	var review struct {
		APIVersion string `json:"apiVersion"`
		Kind       string `json:"kind"`
		Status     struct {
			User struct {
				Name string `json:"username"`
			} `json:"userInfo"`
		} `json:"status,omitzero"`
	}
	review.APIVersion, review.Kind = "authentication.k8s.io/v1", "SelfSubjectReview"
	err := as.Create(ctx, reviews, "", review, &review)
	if apierrors.IsNotFound(err) || kube.IsForbidden(err) {
		return "", nil
	}
	return review.Status.User.Name, err
}

// explain returns the likely reason of a refusal.
func explain(c *Credentials, said kube.Claims, err error) error {
	if !apierrors.IsUnauthorized(err) {
		return fmt.Errorf("the credentials of %s do not work: %w", c.Source, err)
	}
	var why, hint string
	fresh := false
	switch {
	case !said.Expires.IsZero() && time.Now().After(said.Expires):
		why, hint = "it expired at "+said.Expires.UTC().Format(time.RFC3339), "delete the Secret and make it anew, or use --bound"
	case c.disused != "":
		why = "the control plane has declared it invalid on " + c.disused + ", because nobody used it for a year"
		hint = "to use it all the same, take the label " + invalidSince + " off the Secret"
	case said.Subject != "" && said.Subject != c.Account.User():
		why, hint = fmt.Sprintf("it says that it is for %q, not for %q", said.Subject, c.Account.User()), "is it the right Secret?"
	default:
		why, hint = "was it made by another cluster, or for an account that was deleted since?", "delete the Secret and make it anew"
		fresh = true
	}
	err = fmt.Errorf("API server %s refuses the token of %s: %s; %s", c.Server, c.Source, why, hint)
	if fresh {
		return unsettled{err}
	}
	return err
}

// atOnce is how many rights are checked at the same time.
const atOnce = 8

// checkRights asks the API server about each right of the token. A missing right that the
// daemon uses is an error; the others are notes.
func checkRights(ctx context.Context, as *kube.Client, c *Credentials, r Request) error {
	list := rightsOf(r.Program)
	allowed, errs := make([]bool, len(list)), make([]error, len(list))
	var group sync.WaitGroup
	turns := make(chan struct{}, atOnce)
	for i, right := range list {
		group.Go(func() {
			turns <- struct{}{}
			defer func() { <-turns }()
			allowed[i], errs[i] = mayI(ctx, as, right)
		})
	}
	group.Wait()
	if i := slices.IndexFunc(errs, func(err error) bool { return err != nil }); i >= 0 {
		return fmt.Errorf("the rights of %s cannot be checked: %w", c.Account, errs[i])
	}
	c.Rights = len(list)
	var missing, unused []string
	for i, right := range list {
		switch {
		case allowed[i]:
		case right.used:
			missing = append(missing, right.String())
		default:
			unused = append(unused, right.String())
		}
	}
	if len(missing) > 0 {
		return unsettled{fmt.Errorf("%s may not, in all namespaces: %s; %s, which grants this", c.Account.User(), strings.Join(missing, ", "), remedy(r.Program))}
	}
	if len(unused) > 0 {
		c.note(fmt.Sprintf("%s may not, what this %s does without but older ones need: %s", c.Account.User(), r.Program, strings.Join(unused, ", ")))
	}
	return nil
}

// access is a SelfSubjectAccessReview.
type access struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Spec       struct {
		Attributes struct {
			Verb        string `json:"verb"`
			Group       string `json:"group"`
			Resource    string `json:"resource"`
			Subresource string `json:"subresource,omitempty"`
		} `json:"resourceAttributes"`
	} `json:"spec"`
	Status struct {
		Allowed bool `json:"allowed"`
	} `json:"status,omitzero"`
}

func mayI(ctx context.Context, as *kube.Client, r right) (bool, error) {
	a := access{APIVersion: "authorization.k8s.io/v1", Kind: "SelfSubjectAccessReview"}
	at := &a.Spec.Attributes
	at.Verb, at.Group, at.Resource, at.Subresource = r.verb, r.group, r.resource, r.sub
	err := as.Create(ctx, accesses, "", a, &a)
	return a.Status.Allowed, err
}

// right is one verb on one resource, in all namespaces.
type right struct {
	group, resource, sub, verb string
	used                       bool
}

// String is the form of kubectl auth can-i and of our messages.
func (r right) String() string {
	s := r.verb + " " + r.resource + "." + r.group
	if r.sub != "" {
		s += "/" + r.sub
	}
	return s
}

// rightsOf returns all rights of a program, those that it uses first.
func rightsOf(program string) (list []right) {
	p, _ := product.Of(program)
	for _, used := range []bool{true, false} {
		for _, r := range p.Rules {
			resource, sub, _ := strings.Cut(r.Resource, "/")
			verbs := r.Other
			if used {
				verbs = r.Used
			}
			for verb := range strings.FieldsSeq(verbs) {
				list = append(list, right{r.Group, resource, sub, verb, used})
			}
		}
	}
	return list
}
