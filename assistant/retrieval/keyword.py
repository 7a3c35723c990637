"""The keyword arm: BM25 over PostgreSQL's text search, in one scoped statement.

``ts_rank`` alone is not BM25: it knows neither how rare a word is nor how long the text. But for a
single word with all weights 1 it is a function of the term frequency only, 6/pi^2 * sum(1/j^2) for
j up to tf (``calc_rank_or`` in PostgreSQL's tsrank.c), so the frequency can be read back from it,
which is several times faster than unnesting the vector.

Document frequencies are counted over the rows the reader may see, so a score tells nothing about
hidden documents. k1 and b are Lucene's defaults (Robertson and Zaragoza 2009, section 3.4).
"""

from __future__ import annotations

from itertools import accumulate

from django.conf import settings
from django.db import connection

from assistant.retrieval.scope import Scope
from assistant.retrieval.vector import Ranked

K1 = 1.2
B = 0.75
MAX_TERMS = 48
# sum(1/j^2) for tf 1, 2, ..., lowered a little against rounding in ts_rank's float4.
_STEPS = [step * 0.99999 for step in accumulate(1 / j**2 for j in range(1, 41))]


def terms_of(query: str) -> list[str]:
    """The distinct lexemes of a question, in the order they appear."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT lexeme FROM unnest(to_tsvector(%s::regconfig, unaccent(%s)))
            ORDER BY positions[1]
            """,
            [settings.TEXT_SEARCH_CONFIG, query],
        )
        return [row[0] for row in cursor.fetchall()][:MAX_TERMS]


def best_matches(query: str, *, scope: Scope, limit: int) -> list[Ranked]:
    """The ``limit`` visible chunks with the highest BM25 score of the question's words."""
    terms = terms_of(query)
    if not terms:
        return []
    params = {
        **scope.params,
        "terms": terms,
        "literals": [_literal(term) for term in terms],
        "steps": _STEPS,
        "limit": limit,
        "k1": K1,
        "b": B,
    }
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            WITH term AS MATERIALIZED (
                SELECT lexeme, literal::tsquery AS query
                FROM unnest(%(terms)s::text[], %(literals)s::text[]) AS both_of(lexeme, literal)
            ),
            candidate AS MATERIALIZED (
                SELECT c.id, c.terms, c.term_count FROM retrieval_chunk c {scope.live}
                WHERE c.terms @@ (SELECT string_agg(query::text, ' | ')::tsquery FROM term)
                AND {scope.on("c.collection_id")}
            ),
            visible AS MATERIALIZED (
                SELECT greatest(count(*), 1)::float8 AS n,
                       greatest(avg(c.term_count), 1)::float8 AS mean_length
                FROM retrieval_chunk c {scope.live} WHERE {scope.on("c.collection_id")}
            ),
            occurrence AS MATERIALIZED (
                SELECT candidate.id, candidate.term_count, term.lexeme,
                       width_bucket(
                           ts_rank('{{1,1,1,1}}', candidate.terms, term.query)::float8
                               * 1.64493406685,
                           %(steps)s::float8[]
                       ) AS tf
                FROM candidate JOIN term ON candidate.terms @@ term.query
            ),
            rarity AS MATERIALIZED (
                SELECT lexeme, ln(1 + (visible.n - count(*) + 0.5) / (count(*) + 0.5)) AS idf
                FROM occurrence CROSS JOIN visible GROUP BY lexeme, visible.n
            )
            SELECT o.id,
                   sum(r.idf * o.tf * (%(k1)s + 1)
                       / (o.tf + %(k1)s * (1 - %(b)s + %(b)s * o.term_count / visible.mean_length)))
                   AS score
            FROM occurrence o JOIN rarity r USING (lexeme) CROSS JOIN visible
            GROUP BY o.id ORDER BY score DESC, o.id LIMIT %(limit)s
            """,
            params,
        )
        return [Ranked(chunk_id, float(score)) for chunk_id, score in cursor.fetchall()]


def _literal(lexeme: str) -> str:
    """A lexeme as tsquery writes it: in quotes, quotes and backslashes doubled."""
    return "'" + lexeme.replace("\\", "\\\\").replace("'", "''") + "'"
