"""ES3, the Entire-Space Sample System (UniScale 3.3), on Spark."""
