"""Where labelled reviews come from: a class a source, a file each.

``reviews`` ships in a package, ``imdb`` is fetched once, ``file`` is whatever a user has; a format of ``file`` has a
file of its own, too.
"""

from gruland.data.sources.file import File
from gruland.data.sources.imdb import Imdb
from gruland.data.sources.reviews import Reviews

__all__ = ["File", "Imdb", "Reviews"]
