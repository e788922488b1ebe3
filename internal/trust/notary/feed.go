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
	// feedWindow is how many of the records that were seen last are read again each time. That they
	// are still there shows that the list has not started anew; and a record whose number was given
	// out before theirs, but which was committed after them, is found among them.
	feedWindow = 16
	// feedPage is how many records are asked for. More in one interval, and polling is no dearer.
	feedPage = 500
	// maxFeedSize is some four times what a page of long names takes.
	maxFeedSize = 1 << 20
	// maxFeedValues bounds the JSON values of an answer. A record has six.
	maxFeedValues = 32 * feedPage
	// feedStart is the place before the first record, feedNewest the newest going backwards:
	// numbers of the protocol.
	feedStart, feedNewest = "0", "-1"
)

// recordID is a number with the servers that keep their records in SQL or in memory, and a UUID
// with others.
var recordID = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9-]{0,63}$`)

// CatalogGetter is what a Getter implements that can read what is of no repository.
type CatalogGetter interface {
	// GetCatalog returns the body at a path of the server, with a query and with a token for the
	// catalogue of all repositories. It fails as Get does.
	GetCatalog(ctx context.Context, path string, query url.Values, limit int64) ([]byte, error)
}

var _ trust.Feed = (*Root)(nil)

// record is one publication, or deletion, as the server lists it.
type record struct {
	ID, GUN, SHA256, Category string
	Version                   int64
}

// mark tells a record from any other, also from one that got its number after the server has
// started anew.
func (r record) fingerprint() string {
	sum := sha256.Sum256([]byte(fmt.Sprintf("%q %q %q %d", r.GUN, r.SHA256, r.Category, r.Version)))
	return r.ID + " " + hex.EncodeToString(sum[:8])
}

// Changes implements trust.Feed by the change feed of the server. It takes one request. A cursor is
// the ID that the window begins after, and the marks of the records in it. A list that is empty, or
// that holds more new records than a page, has none.
//
// The feed of one repository alone, which a Notary server has as well, would cost what its
// timestamp costs.
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
	for _, mark := range after[1:] {
		seen[mark] = true
	}
	named := map[string]bool{}
	for _, record := range records {
		mark := record.fingerprint()
		if !seen[mark] && checkRepository(record.GUN) == nil {
			named[record.GUN] = true
		}
		delete(seen, mark)
	}
	changes := trust.Changes{Repositories: slices.Sorted(maps.Keys(named))}
	if len(seen) == 0 && len(records) < feedPage {
		changes.Cursor = cursor(after[0], records)
	}
	return changes, nil
}

// cursor is the place at the end of records that were listed after an ID.
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

// listed asks for records after an ID, oldest first, and holds them against the bounds and the form
// of the protocol.
func (r *Root) fetchRecords(ctx context.Context, after string, most int) ([]record, error) {
	get, ok := r.getter.(CatalogGetter)
	if !ok {
		return nil, trust.NewFault(v1alpha1.ReasonUnexpectedAnswer, "%s: cannot be asked for", feedPath)
	}
	body, err := get.GetCatalog(ctx, feedPath, url.Values{"change_id": {after}, "records": {strconv.Itoa(most)}},
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
			return trust.NewFault(v1alpha1.ReasonUnexpectedAnswer, "%s: the answer is no JSON of less than %d values",
				feedPath, maxFeedValues)
		}
		if err := json.Unmarshal(body, &answer); err != nil {
			return trust.NewFault(v1alpha1.ReasonUnexpectedAnswer, "%s: the answer is no list of publications: %w",
				feedPath, err)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if len(answer.Records) > most {
		return nil, trust.NewFault(v1alpha1.ReasonTooLarge, "%s: lists %d publications where %d were asked for",
			feedPath, len(answer.Records), most)
	}
	ids := map[string]bool{}
	for _, record := range answer.Records {
		if !recordID.MatchString(record.ID) || ids[record.ID] {
			return nil, trust.NewFault(v1alpha1.ReasonUnexpectedAnswer,
				"%s: lists a publication under the ID %.80q, which is none or is there twice", feedPath, record.ID)
		}
		ids[record.ID] = true
	}
	return answer.Records, nil
}
