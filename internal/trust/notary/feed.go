package notary

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strconv"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/jsonscan"
	"github.com/countersign-dev/countersign/internal/trust"
)

const (
	feedPath = "/v2/_trust/changefeed"
	// feedWindow is how many of the last seen records are read again each time. If they are still
	// there, the feed has not been reset. The window also contains late records: the server
	// assigned their ID before that of a seen record, but committed them after it.
	feedWindow = 16
	// feedPage is how many records are requested. With more new records, polling costs no more.
	feedPage = 500
	// maxFeedSize is about four times the size of a page with long names, in bytes.
	maxFeedSize = 1 << 20
	// maxFeedValues bounds the JSON values of a response. A record has six.
	maxFeedValues = 32 * feedPage
	// feedStart requests the records from the oldest on, and feedNewest the newest ones. Both are
	// values of the protocol.
	feedStart, feedNewest = "0", "-1"
)

// recordID matches a record ID: a number if the server stores records in SQL or in memory, and a
// UUID otherwise.
var recordID = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9-]{0,63}$`)

// CatalogGetter is a Getter that can also read resources outside of a repository.
type CatalogGetter interface {
	// GetCatalog returns the body at a path of the server. It sends a query and a token with the
	// catalog scope. Its errors are those of Get.
	GetCatalog(ctx context.Context, path string, query url.Values, limit int64) ([]byte, error)
}

var _ trust.Feed = (*Root)(nil)

// record is a publication or deletion in the change feed.
type record struct {
	ID, GUN, SHA256, Category string
	Version                   int64
}

// fingerprint identifies a record. It differs even from a record that has the same ID after a reset
// of the server.
func (r record) fingerprint() string {
	sum := sha256.Sum256([]byte(fmt.Sprintf("%q %q %q %d", r.GUN, r.SHA256, r.Category, r.Version)))
	return r.ID + " " + hex.EncodeToString(sum[:8])
}

// Changes implements trust.Feed with the change feed of the server. It sends one request. A cursor
// is the ID before the window, followed by the fingerprints of the records in the window. There is
// no cursor if the feed is empty or has more new records than a page.
//
// A Notary server also has a feed for each repository. That would save nothing: a request for the
// timestamp costs the same.
func (r *Root) Changes(ctx context.Context, after trust.Cursor) (trust.Changes, error) {
	if len(after) == 0 {
		records, err := r.fetchRecords(ctx, feedNewest, feedWindow+1)
		if err == nil && len(records) == 0 {
			err = trust.NewFault(v1alpha1.ReasonUnexpectedAnswer, "%s: the server lists no publication at all",
				feedPath)
		}
		return trust.Changes{Cursor: cursor(feedStart, records)}, err
	}
	records, err := r.fetchRecords(ctx, after[0], feedPage)
	if err != nil {
		return trust.Changes{}, err
	}
	seen := map[string]bool{}
	for _, fingerprint := range after[1:] {
		seen[fingerprint] = true
	}
	changed := map[string]bool{}
	for _, record := range records {
		fingerprint := record.fingerprint()
		if !seen[fingerprint] && checkRepository(record.GUN) == nil {
			changed[record.GUN] = true
		}
		delete(seen, fingerprint)
	}
	changes := trust.Changes{Repositories: slices.Sorted(maps.Keys(changed))}
	if len(seen) == 0 && len(records) < feedPage {
		changes.Cursor = cursor(after[0], records)
	}
	return changes, nil
}

// cursor returns the cursor at the end of records that were listed after an ID.
func cursor(after string, records []record) trust.Cursor {
	if n := len(records); n > feedWindow {
		after = records[n-feedWindow-1].ID
		records = records[n-feedWindow:]
	}
	c := trust.Cursor{after}
	for _, record := range records {
		c = append(c, record.fingerprint())
	}
	return c
}

// fetchRecords requests records after an ID, oldest first, and checks their number and form.
func (r *Root) fetchRecords(ctx context.Context, after string, limit int) ([]record, error) {
	get, ok := r.getter.(CatalogGetter)
	if !ok {
		return nil, trust.NewFault(v1alpha1.ReasonUnexpectedAnswer, "%s: cannot be requested", feedPath)
	}
	body, err := get.GetCatalog(ctx, feedPath, url.Values{"change_id": {after}, "records": {strconv.Itoa(limit)}},
		maxFeedSize)
	switch {
	case errors.Is(err, trust.ErrNotFound):
		return nil, trust.NewFault(v1alpha1.ReasonUnexpectedAnswer, "%s: the server does not list publications: %w",
			feedPath, err)
	case err != nil:
		return nil, trust.AsFault(err, v1alpha1.ReasonUnreachable)
	case len(body) > maxFeedSize:
		return nil, trust.NewFault(v1alpha1.ReasonTooLarge, "%s: has more than the %d bytes that it may have", feedPath,
			maxFeedSize)
	}
	var answer struct {
		Records []record `json:"records"`
	}
	err = r.withinBudget(ctx, feedPath, len(body), func() error {
		if values, ok := jsonscan.Count(body, maxFeedValues); !ok || values == maxFeedValues {
			return trust.NewFault(v1alpha1.ReasonUnexpectedAnswer,
				"%s: the response is not JSON with fewer than %d values",
				feedPath, maxFeedValues)
		}
		if err := json.Unmarshal(body, &answer); err != nil {
			return trust.NewFault(v1alpha1.ReasonUnexpectedAnswer, "%s: the response is not a list of publications: %w",
				feedPath, err)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if len(answer.Records) > limit {
		return nil, trust.NewFault(v1alpha1.ReasonTooLarge, "%s: lists %d publications where %d were requested",
			feedPath, len(answer.Records), limit)
	}
	ids := map[string]bool{}
	for _, record := range answer.Records {
		if !recordID.MatchString(record.ID) || ids[record.ID] {
			return nil, trust.NewFault(v1alpha1.ReasonUnexpectedAnswer,
				"%s: lists a publication under the ID %.80q, which is invalid or occurs twice", feedPath, record.ID)
		}
		ids[record.ID] = true
	}
	return answer.Records, nil
}
