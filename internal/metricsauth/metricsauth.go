// Package metricsauth authorizes requests for metrics: the API server must know the token
// (TokenReview), and the RBAC of the cluster must allow the path (SubjectAccessReview). A request
// that cannot be checked is refused, and so is an anonymous one.
//
// No result is cached. A scrape costs two small requests, and a revoked token or right counts from
// the next scrape on. A cache would not help against made-up tokens, each of which is new. The rate
// limit of the reviews bounds those: their client has a limit of its own, because the manager's
// client has none and a flood of reviews would make the API server throttle all of the manager's
// requests.
package metricsauth

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/go-logr/logr"
	"golang.org/x/time/rate"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	authenticationclient "k8s.io/client-go/kubernetes/typed/authentication/v1"
	authorizationclient "k8s.io/client-go/kubernetes/typed/authorization/v1"
	"k8s.io/client-go/rest"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
)

const (
	// reviewTimeout bounds both reviews of a request together, and the wait for the rate limiter.
	// Prometheus waits 10 s by default.
	reviewTimeout = 5 * time.Second
	// reviewsPerSecond and reviewBurst limit the reviews of each kind. Together with reviewTimeout
	// they bound the requests that wait: one that would wait longer is refused at once.
	reviewsPerSecond = 10
	reviewBurst      = 20
	// maxToken, in bytes, is longer than the tokens of ServiceAccounts (1 KiB) and of identity
	// providers that list many groups.
	maxToken = 16 << 10
	// faultInterval is the least time between two log lines on faults, so that refused clients do
	// not fill the log.
	faultInterval = 10 * time.Second
)

// The identity that Kubernetes gives to a client without credentials.
const (
	anonymousUser        = "system:anonymous"
	unauthenticatedGroup = "system:unauthenticated"
)

// The two verdicts; every other error is a fault.
var (
	errUnauthenticated = errors.New("unauthorized: a bearer token that the cluster knows is needed")
	errForbidden       = errors.New("forbidden")
)

// token68 is the syntax of a bearer token (RFC 6750, section 2.1).
var token68 = regexp.MustCompile(`^[A-Za-z0-9._~+/-]+=*$`)

// +kubebuilder:rbac:groups=authentication.k8s.io,resources=tokenreviews,verbs=create
// +kubebuilder:rbac:groups=authorization.k8s.io,resources=subjectaccessreviews,verbs=create

// Filter is a FilterProvider of the metrics server. It answers 401 where there is no token that the
// API server knows, 403 where its user may not use the path with the method, and 503 where that
// could not be checked.
func Filter(config *rest.Config, httpClient *http.Client) (metricsserver.Filter, error) {
	config = rest.CopyConfig(config)
	config.QPS, config.Burst, config.RateLimiter = reviewsPerSecond, reviewBurst, nil
	tokens, err := authenticationclient.NewForConfigAndClient(config, httpClient)
	if err != nil {
		return nil, fmt.Errorf("making the client for TokenReviews: %w", err)
	}
	rights, err := authorizationclient.NewForConfigAndClient(config, httpClient)
	if err != nil {
		return nil, fmt.Errorf("making the client for SubjectAccessReviews: %w", err)
	}
	r := reviewer{tokens: tokens.TokenReviews(), rights: rights.SubjectAccessReviews()}
	return func(log logr.Logger, next http.Handler) (http.Handler, error) {
		faults := rate.NewLimiter(rate.Every(faultInterval), 1)
		return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			switch err := r.review(req); {
			case err == nil:
				next.ServeHTTP(w, req)
			case errors.Is(err, errUnauthenticated):
				w.Header().Set("WWW-Authenticate", "Bearer") // RFC 6750, section 3
				http.Error(w, err.Error(), http.StatusUnauthorized)
			case errors.Is(err, errForbidden):
				http.Error(w, err.Error(), http.StatusForbidden)
			default:
				if req.Context().Err() == nil && faults.Allow() { // the client still waits
					log.Error(err, "Could not check a request")
				}
				http.Error(w, "credentials could not be checked", http.StatusServiceUnavailable)
			}
		}), nil
	}, nil
}

// reviewer sends reviews to the API server.
type reviewer struct {
	tokens authenticationclient.TokenReviewInterface
	rights authorizationclient.SubjectAccessReviewInterface
}

// review returns nil for an authorized request. The error is errUnauthenticated or errForbidden
// where that is the verdict, and any other error is a fault.
func (r reviewer) review(req *http.Request) error {
	token, ok := bearer(req.Header)
	if !ok {
		return errUnauthenticated
	}
	ctx, cancel := context.WithTimeout(req.Context(), reviewTimeout)
	defer cancel()
	user, err := r.authenticate(ctx, token)
	if err != nil {
		return err
	}
	return r.authorize(ctx, user, strings.ToLower(req.Method), req.URL.Path)
}

// authenticate returns the user of a token, for the audiences of the API server.
func (r reviewer) authenticate(ctx context.Context, token string) (authenticationv1.UserInfo, error) {
	review := &authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: token}}
	review, err := r.tokens.Create(ctx, review, metav1.CreateOptions{})
	if err != nil {
		return authenticationv1.UserInfo{}, fmt.Errorf("reviewing a token: %w", err)
	}
	user := review.Status.User
	if !review.Status.Authenticated || user.Username == "" || user.Username == anonymousUser ||
		slices.Contains(user.Groups, unauthenticatedGroup) {
		return authenticationv1.UserInfo{}, errUnauthenticated
	}
	return user, nil
}

func (r reviewer) authorize(ctx context.Context, user authenticationv1.UserInfo, verb, path string) error {
	extra := make(map[string]authorizationv1.ExtraValue, len(user.Extra))
	for key, value := range user.Extra {
		extra[key] = authorizationv1.ExtraValue(value)
	}
	review := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
		User: user.Username, UID: user.UID, Groups: user.Groups, Extra: extra,
		NonResourceAttributes: &authorizationv1.NonResourceAttributes{Path: path, Verb: verb},
	}}
	review, err := r.rights.Create(ctx, review, metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("reviewing the rights of %s: %w", user.Username, err)
	}
	if !review.Status.Allowed || review.Status.Denied {
		return fmt.Errorf("%w: %s may not %s %s", errForbidden, user.Username, verb, path)
	}
	return nil
}

// bearer returns the token of the only Authorization header. Anything else is not sent to the API
// server, which takes a token that begins with a blank for no token, and the client for anonymous.
func bearer(h http.Header) (string, bool) {
	values := h.Values("Authorization")
	if len(values) != 1 {
		return "", false
	}
	scheme, token, _ := strings.Cut(values[0], " ")
	token = strings.TrimLeft(token, " ")
	return token, strings.EqualFold(scheme, "Bearer") && len(token) <= maxToken && token68.MatchString(token)
}
